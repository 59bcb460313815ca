// The unmodified npm client `centrifuge` against a running gateway, in its JSON and in its Protobuf build.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { FORMATS, Inbox, connect, data, fence, fresh, gateway, isPing, pack } from './support.mjs';
import { refusal, subscribe, within } from './support.mjs';

const BOTH = ['dev', 'strict'].flatMap((kind) => FORMATS.map((format) => [kind, format]));

for (const [kind, format] of BOTH) {
  test(`${kind}, ${format}: every client receives what the API publishes, whole and in order`, async (t) => {
    const at = gateway(kind, format);
    const channel = fresh('news:');
    const clients = [await connect(t, at), await connect(t, at), await connect(t, at)];
    const subscriptions = await Promise.all(clients.map((client) => subscribe(client, channel)));
    const published = [
      { text: 'plain' },
      'só um texto — 文字 🌊 \u2028',
      { deep: [1, -2.5e3, null, true, { 'key with "quotes"': '\\ and \n and \u0000' }] },
      [],
      0,
      'x'.repeat(40_000),
      ...Array.from({ length: 100 }, (_, n) => ({ n })),
    ];
    for (const item of published) await at.publish(channel, item);
    for (const { inbox } of subscriptions) {
      await inbox.count(published.length, 'publications');
      assert.deepEqual(data(inbox), published);
    }
    // Neither doubled nor followed by anything else.
    for (const seen of await fence(at, ...subscriptions)) assert.equal(seen.length, published.length);
  });

  test(`${kind}, ${format}: one broadcast reaches all its channels, tags come along`, async (t) => {
    const at = gateway(kind, format);
    const client = await connect(t, at);
    const a = await subscribe(client, fresh('news:'));
    const b = await subscribe(client, fresh('news:'));
    const { responses } = await at.call('broadcast', {
      channels: [a.channel, b.channel],
      data: 'both',
      tags: { lang: 'pt' },
    });
    assert.equal(responses.length, 2);
    for (const { inbox } of [a, b]) {
      const [publication] = await inbox.count(1, 'publications');
      assert.equal(publication.data, 'both');
      assert.deepEqual(publication.tags, { lang: 'pt' });
    }
  });

  test(`${kind}, ${format}: clients of another channel receive nothing`, async (t) => {
    const at = gateway(kind, format);
    const reader = await connect(t, at);
    const stranger = await connect(t, at);
    const news = await subscribe(reader, fresh('news:'));
    // One letter more than the channel that is published to.
    const other = await subscribe(stranger, `${news.channel}x`);
    for (let n = 0; n < 20; n += 1) await at.publish(news.channel, n);
    await news.inbox.count(20, 'publications');
    assert.deepEqual((await fence(at, other))[0], []);
    assert.equal(data(news.inbox).length, 20);
  });

  test(`${kind}, ${format}: nothing comes after unsubscribe, and all comes again after a new subscribe`, async (t) => {
    const at = gateway(kind, format);
    const client = await connect(t, at);
    const witness = await connect(t, at);
    const leaving = await subscribe(client, fresh('news:'));
    const staying = await subscribe(witness, leaving.channel);
    const marker = await subscribe(client, fresh('news:'));
    // Behind the SDK's back, which drops publications of a subscription that it has ended.
    const frames = new Inbox();
    client._transport._transport.addEventListener('message', (event) => frames.push(Buffer.from(event.data).toString()));
    await at.publish(leaving.channel, 'before');
    await leaving.inbox.count(1, 'publications');
    leaving.unsubscribe();
    // The reply to a later command: the server has dealt with the unsubscribe when it is here.
    await within(client.rpc('fence', pack(at, {})).catch((error) => assert.equal(error.code, 108)), 'reply');
    await at.publish(leaving.channel, 'after');
    await staying.inbox.find((publication) => publication.data === 'after', 'publication for the witness');
    await fence(at, marker);
    assert.deepEqual(data(leaving.inbox), ['before']);
    assert.ok(!frames.all.some((frame) => frame.includes('"after"')), frames.all.join('\n'));

    leaving.subscribe();
    await within(leaving.ready(), 'subscribed again');
    await at.publish(leaving.channel, 'again');
    await leaving.inbox.count(2, 'publications');
    assert.deepEqual(data(leaving.inbox), ['before', 'again']);
  });

  test(`${kind}, ${format}: what a client publishes reaches the others and itself, with its name on it`, async (t) => {
    const at = gateway(kind, format);
    const author = await connect(t, at);
    const reader = await connect(t, at);
    const own = await subscribe(author, fresh('chat:'));
    const theirs = await subscribe(reader, own.channel);
    const { client: id } = await author.states.find(({ state }) => state === 'connected', 'connected');
    await within(own.publish(pack(at, { text: 'hello' })), 'reply to publish');
    await within(author.publish(own.channel, pack(at, { text: 'again' })), 'reply to publish');
    for (const { inbox } of [own, theirs]) {
      await inbox.count(2, 'publications');
      assert.deepEqual(data(inbox), [{ text: 'hello' }, { text: 'again' }]);
      assert.ok(inbox.all.every(({ info }) => info.client === id), JSON.stringify(inbox.all));
    }
  });

  test(`${kind}, ${format}: a client that the server sends away with a 3xxx code below 3500 comes back and goes on`, async (t) => {
    const at = gateway(kind, format);
    const client = await connect(t, at);
    const bystander = await connect(t, at);
    const news = await subscribe(client, fresh('news:'));
    const first = await client.states.find(({ state }) => state === 'connected', 'connected');
    const disconnect = { code: 3011, reason: 'force reconnect' };
    await at.call('disconnect', { user: '', client: first.client, disconnect });
    const away = await client.states.find(({ code }) => code === 3011, 'disconnect with 3011');
    assert.deepEqual(away, { state: 'connecting', code: 3011, reason: 'force reconnect' });
    const second = await client.states.find((one) => one.state === 'connected' && one.client !== first.client, 'return');
    assert.notEqual(second.client, first.client);
    await within(news.ready(), 'subscribed again');
    await at.publish(news.channel, 'welcome back');
    await news.inbox.find((publication) => publication.data === 'welcome back', 'publication after the return');
    assert.equal(bystander.states.all.length, 2, 'the other client was not touched: connecting, connected');
  });

  test(`${kind}, ${format}: a client that is disconnected for good stays away`, async (t) => {
    const at = gateway(kind, format);
    const client = await connect(t, at);
    const { client: id } = await client.states.find(({ state }) => state === 'connected', 'connected');
    await at.call('disconnect', { user: '', client: id });
    const end = await client.states.find(({ state }) => state === 'disconnected', 'disconnected');
    assert.deepEqual(end, { state: 'disconnected', code: 3503, reason: 'force disconnect' });
  });
}

test('a wrong or missing API key gets 401 and delivers nothing; the right one delivers', async (t) => {
  const at = gateway('strict');
  const client = await connect(t, at);
  const news = await subscribe(client, fresh('news:'));
  for (const key of ['', 'key-of-the-client-test', 'key-of-the-client-testt', 'key-of-the-client-tests2']) {
    const refused = await at.post('publish', { channel: news.channel, data: 'forged' }, key);
    assert.equal(refused.status, 401, `key ${JSON.stringify(key)}`);
    assert.equal(await refused.text(), '');
  }
  const missing = await fetch(`${process.env.TIDEGATE_TEST_STRICT_API}/api/publish`, {
    method: 'POST',
    body: JSON.stringify({ channel: news.channel, data: 'forged' }),
  });
  assert.equal(missing.status, 401);
  assert.deepEqual((await fence(at, news))[0], []);
});

for (const format of FORMATS) {
  test(`${format}: subscribing where it is not allowed is refused with 103, in an unknown namespace with 102`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    assert.deepEqual(await refusal(client, fresh('closed:')), { code: 103, reason: 'permission denied' });
    assert.deepEqual(await refusal(client, fresh('plain')), { code: 103, reason: 'permission denied' });
    assert.deepEqual(await refusal(client, fresh('nowhere:')), { code: 102, reason: 'unknown channel' });
    assert.equal((await refusal(client, `news:${'x'.repeat(300)}`)).code, 107);
    // An error ends the subscription, not the connection.
    await subscribe(client, fresh('news:'));
    assert.equal(client.states.all.filter(({ state }) => state === 'connected').length, 1);
  });

  test(`${format}: publishing where it is not allowed is refused with 103 and delivers nothing`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const news = await subscribe(client, fresh('news:'));
    const codeOf = (channel) => within(client.publish(channel, pack(at, 'x')).then(() => 0, ({ code }) => code), 'reply to publish');
    assert.equal(await codeOf(news.channel), 103);
    assert.equal(await codeOf(fresh('nowhere:')), 102);
    assert.deepEqual((await fence(at, news))[0], []);
  });

  test(`${format}: in a namespace for subscribers a client may publish once it has subscribed`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const channel = fresh('members:');
    const codeOf = () => within(client.publish(channel, pack(at, 'x')).then(() => 0, ({ code }) => code), 'reply to publish');
    assert.equal(await codeOf(), 103);
    const members = await subscribe(client, channel);
    assert.equal(await codeOf(), 0);
    await members.inbox.count(1, 'publications');
    assert.deepEqual((await fence(at, members))[0], ['x']);
  });

  test(`${format}: a subscription with deltas is sent what has changed and has the whole payloads`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const other = await connect(t, at);
    const lengths = new Inbox();
    client._transport._transport.addEventListener('message', (event) => lengths.push(Buffer.from(event.data).length));
    const channel = fresh('delta:');
    const weather = await subscribe(client, channel, { delta: 'fossil' });
    const whole = await subscribe(other, channel);
    lengths.all.length = 0;
    const report = (n) => ({ place: 'Übersee 🌊', text: `só um texto — 文字 `.repeat(20), n, odd: 'é'.repeat(n % 5) });
    const published = Array.from({ length: 50 }, (_, n) => report(n));
    // One that has nothing in common with its neighbours, and is sent whole.
    published.splice(25, 0, 'x'.repeat(300), { y: Array.from({ length: 50 }, (_, n) => n * n) });
    for (const item of published) await at.publish(channel, item);
    await weather.inbox.count(published.length, 'publications');
    await whole.inbox.count(published.length, 'publications');
    assert.deepEqual(data(weather.inbox), published);
    assert.deepEqual(data(whole.inbox), published);
    const length = Buffer.byteLength(JSON.stringify(report(0)));
    const short = lengths.all.filter((bytes) => bytes < length / 2).length;
    assert.ok(short >= published.length - 5, `${short} of ${lengths.all} are patches; ${length} is a whole one`);
    // Whoever comes later begins with a whole one.
    const late = await subscribe(await connect(t, at), channel, { delta: 'fossil' });
    for (const item of published.slice(0, 3)) await at.publish(channel, item);
    await late.inbox.count(3, 'publications');
    assert.deepEqual(data(late.inbox), published.slice(0, 3));
  });

  test(`${format}: what the gateway does not have yet is answered with 108, not with silence`, async (t) => {
    const client = await connect(t, gateway('strict', format));
    const news = await subscribe(client, fresh('news:'));
    const codeOf = (call) => within(call.then(() => 0, ({ code }) => code), 'reply');
    assert.equal(await codeOf(client.rpc('anything', pack(client.at, {}))), 108);
    assert.equal(await codeOf(news.history({ limit: 1 })), 108);
    assert.equal(await codeOf(news.presence()), 108);
    assert.equal(await codeOf(news.presenceStats()), 108);
  });

  test(`${format}: the client answers the server’s pings and stays connected`, async (t) => {
    const at = gateway('strict', format);
    const pings = new Inbox();
    const pongs = new Inbox();
    class Counting extends WebSocket {
      constructor(...args) {
        super(...args);
        this.addEventListener('message', (event) => isPing(event.data) && pings.push(event.data));
      }

      send(text, ...rest) {
        if (isPing(text)) pongs.push(text);
        super.send(text, ...rest);
      }
    }
    const client = await connect(t, at, { websocket: Counting });
    const news = await subscribe(client, fresh('news:'));
    await pings.count(4, 'pings');
    await pongs.count(4, 'pongs');
    // 1.5 s after a ping without a pong the connection would be gone; four pings later it is the same one.
    assert.deepEqual(await fence(at, news), [[]]);
    assert.equal(client.states.all.filter(({ state }) => state === 'connected').length, 1);
  });
}

test('a client that never answers a ping is closed with 3012', async (t) => {
  const at = gateway('strict');
  const socket = new WebSocket(at.websocket);
  t.after(() => socket.terminate());
  const messages = new Inbox();
  socket.on('message', (message) => messages.push(String(message)));
  await within(new Promise((resolve, reject) => socket.on('open', resolve).on('error', reject)), 'open');
  const closed = within(new Promise((resolve) => socket.on('close', (code, why) => resolve([code, `${why}`]))), 'close');
  socket.send('{"id":1,"connect":{}}');
  const reply = JSON.parse(await messages.find((text) => text.includes('connect'), 'connect reply'));
  assert.deepEqual([reply.connect.ping, reply.connect.pong], [2, true]);
  assert.deepEqual(await closed, [3012, 'no pong']);
});

for (const [kind, format] of BOTH) {
  test(`${kind}, ${format}: channels that take turns are inflated to what was published`, async (t) => {
    const at = gateway(kind, format);
    const client = await connect(t, at);
    const subscriptions = [await subscribe(client, fresh('news:')), await subscribe(client, fresh('chat:'))];
    const published = [[], []];
    for (let n = 0; n < 120; n += 1) {
      const turn = n % 7 < 4 ? 0 : 1;
      const item = { n, bid: n * 3, text: 'far away, '.repeat(1 + (n % 5)) + 'só um 文字 🌊' };
      await at.publish(subscriptions[turn].channel, item);
      published[turn].push(item);
    }
    for (const turn of [0, 1]) {
      await subscriptions[turn].inbox.count(published[turn].length, 'publications');
      assert.deepEqual(data(subscriptions[turn].inbox), published[turn]);
    }
    // `ws` offers compression by itself.
    const socket = new WebSocket(at.websocket);
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    assert.equal(socket.extensions, kind === 'strict' ? 'permessage-deflate' : '');
    socket.terminate();
  });
}
