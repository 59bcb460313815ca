// A backend that decides about clients while they are connected, as the unmodified npm client `centrifuge` sees it: one that
// answers, and one that is slow, down or lying.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { WebSocket } from 'ws';
import { Backend, hooked } from './hooked.mjs';
import { FORMATS, Inbox, connect, fresh, pack, refusal, subscribe, unpack, within } from './support.mjs';

const backend = new Backend();
let gateway;

const inSeconds = (seconds) => Math.floor(Date.now() / 1000) + seconds;
const userOf = (body) => ({ result: { user: body.data?.user ?? '42', info: { name: 'Ada' } } });

before(async () => {
  await backend.start();
  gateway = await hooked(backend);
});

after(async () => {
  await gateway?.end();
  await backend.stop();
  assert.deepEqual(backend.forged, [], 'every request is signed');
});

// Answers for one test, beside those that let everybody in.
function answers(t, more) {
  backend.answers = { connect: userOf, subscribe: () => ({ result: {} }), ...more };
  t.after(() => (backend.answers = {}));
}

function idOf(client) {
  return client.states.all.findLast(({ state }) => state === 'connected').client;
}

// The code of an error that a call ends with.
async function codeOf(promise) {
  try {
    await within(promise, 'answer');
    return 0;
  } catch (error) {
    return error.code;
  }
}

for (const format of FORMATS) {
  test(`${format}: the backend says who a client is and what it gets`, async (t) => {
    const at = gateway.at(format);
    const channel = fresh('open:');
    const subs = { [channel]: { data: { seat: 1 } } };
    answers(t, {
      // Only the one that says something is given the channel.
      connect: ({ data }) => ({ result: data ? { user: '7', data: { motd: data.v }, subs, meta: { m: 1 } } : { user: '8' } }),
      rpc: () => ({ result: {} }),
    });
    class WithCookie extends WebSocket {
      constructor(url, protocols) {
        super(url, protocols, { headers: { Cookie: 'sid=1', 'X-Page': 'real ones are not asked for' } });
      }
    }
    const options = { data: pack(at, { v: 2 }), name: 'page', version: '7', headers: { 'x-page': 'p', 'x-other': 'o' } };
    const client = await connect(t, at, { ...options, websocket: WithCookie });
    const { data } = client.states.all.at(-1);
    assert.deepEqual(unpack(at, data), { motd: 2 });
    const [asked] = backend.of(idOf(client), 'connect');
    const { client: _, ...body } = asked.body;
    const expected = { transport: 'websocket', protocol: format, encoding: 'json', data: { v: 2 }, name: 'page', version: '7' };
    assert.deepEqual(body, expected);
    assert.equal(asked.headers.cookie, 'sid=1');
    assert.deepEqual([asked.headers['x-page'], asked.headers['x-other']], ['p', undefined]);
    await client.rpc('ping', pack(at, null));
    assert.deepEqual(backend.of(idOf(client), 'rpc')[0].body.meta, { m: 1 });
    const other = await connect(t, at);
    const seen = await subscribe(other, channel);
    const { clients } = await seen.presence();
    assert.equal(clients[idOf(client)].user, '7');
  });

  test(`${format}: the backend says who subscribes, and what is published`, async (t) => {
    const at = gateway.at(format);
    answers(t, {
      subscribe: ({ channel, user, data }) => {
        if (data?.ticket === 'none') return { error: { code: 403, message: 'not a member' } };
        return { result: { data: { welcome: user, to: channel } } };
      },
      publish: ({ data }) => {
        if (data === 'bad') return { error: { code: 422, message: 'bad words' } };
        return data === 'loud' ? { result: { data: 'softly' } } : { result: {} };
      },
    });
    const client = await connect(t, at);
    const channel = fresh('asked:');
    const subscribed = new Inbox();
    const subscription = client.newSubscription(channel);
    subscription.on('subscribed', (context) => subscribed.push(context));
    subscription.inbox = new Inbox();
    subscription.on('publication', ({ data, info }) => subscription.inbox.push({ data: unpack(at, data), user: info.user }));
    subscription.subscribe();
    const [{ data }] = await subscribed.count(1, 'subscriptions');
    assert.deepEqual(unpack(at, data), { welcome: '42', to: channel });
    assert.deepEqual(await refusal(client, fresh('asked:'), { data: pack(at, { ticket: 'none' }) }), { code: 403, reason: 'not a member' });
    await subscription.publish(pack(at, 'as it is'));
    await subscription.publish(pack(at, 'loud'));
    assert.equal(await codeOf(subscription.publish(pack(at, 'bad'))), 422);
    const seen = await subscription.inbox.count(2, 'publications');
    assert.deepEqual(seen, [{ data: 'as it is', user: '42' }, { data: 'softly', user: '42' }]);
  });

  test(`${format}: the backend is called, and answers`, async (t) => {
    const at = gateway.at(format);
    answers(t, { rpc: ({ method, data, user }) => ({ result: { data: { method, sum: data[0] + data[1], user } } }) });
    const client = await connect(t, at);
    const { data } = await within(client.rpc('add', pack(at, [1, 2])), 'answer');
    assert.deepEqual(unpack(at, data), { method: 'add', sum: 3, user: '42' });
  });

  test(`${format}: the backend says who stays, when the time is really over`, async (t) => {
    const at = gateway.at(format);
    let renewals = 0;
    answers(t, {
      connect: () => ({ result: { user: '42', expire_at: inSeconds(1) } }),
      refresh: () => {
        renewals += 1;
        return renewals < 3 ? { result: { expire_at: inSeconds(1) } } : { result: { expired: true } };
      },
      subscribe: () => ({ result: { expire_at: inSeconds(1) } }),
      sub_refresh: () => ({ result: { expire_at: inSeconds(60) } }),
    });
    const client = await connect(t, at);
    const id = idOf(client);
    await subscribe(client, fresh('asked:'));
    const lost = await client.states.find(({ state, code }) => state === 'connecting' && code > 0, 'end of the connection');
    assert.deepEqual([lost.code, backend.of(id, 'refresh').length], [3005, 3]);
    assert.equal(backend.of(id, 'sub_refresh').length, 1, 'and once about its subscription, which outlived the first end');
    client.disconnect();
  });

  test(`${format}: a backend that refuses a client is obeyed`, async (t) => {
    const at = gateway.at(format);
    answers(t, { connect: () => ({ disconnect: { code: 4501, reason: 'banned' } }) });
    const { Centrifuge } = await import(format === 'protobuf' ? 'centrifuge/build/protobuf' : 'centrifuge');
    const client = new Centrifuge(at.websocket, { websocket: WebSocket });
    t.after(() => client.disconnect());
    const gone = new Promise((resolve) => client.on('disconnected', resolve));
    client.connect();
    const { code, reason } = await within(gone, 'disconnected');
    assert.deepEqual([code, reason], [4501, 'banned']);
  });

  test(`${format}: a slow backend costs its caller an error, and nobody else anything`, async (t) => {
    const at = gateway.at(format);
    answers(t, { rpc: () => undefined, publish: () => ({ result: {} }) });
    const [slow, other] = [await connect(t, at), await connect(t, at)];
    const subscription = await subscribe(other, fresh('asked:'));
    const called = codeOf(slow.rpc('sleep', pack(at, null)));
    await subscription.publish(pack(at, 'meanwhile'));
    assert.deepEqual((await subscription.inbox.count(1, 'publications'))[0].data, 'meanwhile');
    assert.equal(await called, 100);
    assert.deepEqual(slow.states.all.map(({ state }) => state), ['connecting', 'connected']);
  });

  test(`${format}: a lying backend is not believed`, async (t) => {
    const at = gateway.at(format);
    const lies = [
      { raw: 'this is not JSON' },
      { raw: '{}' },
      { raw: '[]' },
      { raw: '{"result":7}' },
      { raw: '{"error":{"code":100,"message":"ours"}}' },
      { raw: '{"disconnect":{"code":1000,"reason":"ours"}}' },
      { raw: `{"result":{"data":"${'x'.repeat(5000)}"}}` },
      { status: 404, raw: '{"result":{}}' },
      { status: 302, raw: '{"result":{}}' },
    ];
    let next = 0;
    answers(t, { rpc: () => lies[next++] ?? { result: { data: 'the truth' } } });
    const client = await connect(t, at);
    for (const lie of lies) {
      assert.equal(await codeOf(client.rpc('', pack(at, null))), 100, JSON.stringify(lie).slice(0, 80));
    }
    const { data } = await client.rpc('', pack(at, null));
    assert.equal(unpack(at, data), 'the truth');
    assert.equal(client.states.all.length, 2, 'it is connected all the time');
  });

  test(`${format}: clients hear at once that a backend is down, and come back when it does`, async (t) => {
    const at = gateway.at(format);
    answers(t, { rpc: () => ({ result: {} }), publish: () => ({ result: {} }) });
    const client = await connect(t, at);
    await client.rpc('', pack(at, null));
    await backend.stop();
    const down = async () => await gateway.metric('tidegate_webhook_calls_total{event="rpc",outcome="down"}');
    const before = await down();
    for (let calls = 0; (await down()) === before; calls += 1) {
      assert.ok(calls < 50, 'it is called again and again');
      assert.equal(await codeOf(client.rpc('', pack(at, null))), 100);
    }
    // A subscription that finds nobody is tried again by the library.
    const channel = fresh('asked:');
    const subscription = client.newSubscription(channel, { minResubscribeDelay: 20, maxResubscribeDelay: 100 });
    const failed = new Promise((resolve) => subscription.on('error', ({ error }) => resolve(error.code)));
    subscription.subscribe();
    assert.equal(await within(failed, 'error'), 100);
    await backend.start();
    await within(subscription.ready(), 'subscribed');
    assert.equal(client.states.all.length, 2, 'it is connected all the time');
    // The calls of another event are found to be answered again by themselves.
    for (let code = 100; code !== 0; code = await codeOf(client.rpc('', pack(at, null))));
  });
}

// The last test of this file: by now clients of all others have come and gone.
test('the backend is told who comes and goes, each once and in order although answers are lost', async (t) => {
  backend.loses = true;
  const at = gateway.at('json');
  answers(t, {});
  const channel = fresh('open:');
  const client = await connect(t, at, { data: { user: 'told' } });
  const id = idOf(client);
  const subscription = await subscribe(client, channel);
  await backend.notices.find((notice) => notice.type === 'occupied' && notice.channel === channel, 'first subscriber');
  subscription.unsubscribe();
  await backend.notices.find((notice) => notice.type === 'vacated' && notice.channel === channel, 'end of the last subscriber');
  client.disconnect();
  const gone = await backend.notices.find((notice) => notice.type === 'disconnected' && notice.client === id, 'end of the client');
  assert.equal(gone.user, 'told');
  const numbers = backend.notices.all.map(({ number }) => number);
  assert.deepEqual(numbers, Array.from(numbers, (_, i) => i + 1), 'none is missing');
  const mine = backend.notices.all.filter((it) => it.client === id || it.channel === channel);
  assert.deepEqual(mine.map(({ type }) => type), ['connected', 'occupied', 'vacated', 'disconnected']);
  assert.equal(await gateway.metric('tidegate_notices_dropped_total'), 0);
});

test('a gateway that ends tells the backend of its last clients first', async (t) => {
  const other = new Backend();
  other.answers = { connect: userOf };
  await other.start();
  t.after(() => other.stop());
  const ending = await hooked(other, { TIDEGATE_DRAIN__NOTICE: '0s', TIDEGATE_DRAIN__TIME: '100ms' });
  const clients = [];
  for (let i = 0; i < 20; i += 1) clients.push(idOf(await connect(t, ending.at('json'), { minReconnectDelay: 60_000 })));
  assert.equal(await ending.end('SIGTERM'), 0, 'it ends well');
  const gone = other.notices.all.filter(({ type }) => type === 'disconnected');
  assert.deepEqual(gone.map(({ client }) => client).sort(), clients.sort());
  assert.deepEqual(new Set(gone.map(({ code }) => code)), new Set([3001]));
});
