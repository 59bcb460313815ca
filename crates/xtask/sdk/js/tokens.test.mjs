// Who a client is and what its tokens grant, as the unmodified npm client `centrifuge` sees it. Ends are really waited for.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FORMATS, Inbox, connect, data, fresh, gateway, pack, refusal, subscribe, token, unpack, within } from './support.mjs';

function idOf(client) {
  return client.states.all.findLast(({ state }) => state === 'connected').client;
}

// A client that does not get in; gives the code with which it was sent away.
async function turnedAway(t, at, options) {
  const { Centrifuge } = await import(at.format === 'protobuf' ? 'centrifuge/build/protobuf' : 'centrifuge');
  const { WebSocket } = await import('ws');
  const client = new Centrifuge(at.websocket, { websocket: WebSocket, minReconnectDelay: 20, ...options });
  t.after(() => client.disconnect());
  const gone = new Promise((resolve) => client.on('disconnected', ({ code }) => resolve(code)));
  client.connect();
  return within(gone, 'disconnected');
}

for (const format of FORMATS) {
  const at = gateway('strict', format);

  test(`${format}: a token says who a client is, and others see it`, async (t) => {
    const ada = await connect(t, at, { token: token({ sub: '42', info: { name: 'Ada' } }) });
    const bob = await connect(t, at, { token: token({ sub: '43' }) });
    const channel = fresh('users:');
    const theirs = await subscribe(bob, channel);
    const mine = await subscribe(ada, channel);
    await mine.publish(pack(at, 'hello'));
    const [publication] = await theirs.inbox.count(1, 'publications');
    assert.deepEqual([publication.info.user, publication.info.client], ['42', idOf(ada)]);
    assert.deepEqual(unpack(at, publication.info.connInfo), { name: 'Ada' });
    const { clients } = await mine.presence();
    assert.equal(clients[idOf(ada)].user, '42');
    assert.equal(clients[idOf(bob)].user, '43');
    assert.deepEqual(await mine.presenceStats(), { numClients: 2, numUsers: 2 });
  });

  test(`${format}: a connection outlives its token when it is renewed`, async (t) => {
    const asked = new Inbox();
    const getToken = async () => {
      asked.push('asked');
      return token({ sub: '42', ends: asked.all.length < 3 ? 1 : 600 });
    };
    const client = await connect(t, at, { token: token({ sub: '42', ends: 1 }), getToken });
    const subscription = await subscribe(client, fresh('users:'));
    const before = idOf(client);
    await asked.count(3, 'new tokens');
    await at.publish(subscription.channel, 'still there');
    await subscription.inbox.count(1, 'publications');
    assert.equal(idOf(client), before, 'the connection is the same');
    assert.equal(client.states.all.length, 2, JSON.stringify(client.states.all));
  });

  test(`${format}: an expired token makes the library fetch another one`, async (t) => {
    let asked = 0;
    const getToken = async () => {
      asked += 1;
      return token({ sub: '42' });
    };
    const client = await connect(t, at, { token: token({ sub: '42', ends: -5 }), getToken });
    assert.equal(asked, 1);
    await subscribe(client, `${fresh('users:')}#42`);
  });

  test(`${format}: a token that does not count sends the client away for good`, async (t) => {
    assert.equal(await turnedAway(t, at, { token: token({ sub: '42' }, 'another secret of thirty-two bytes') }), 3500);
    assert.equal(await turnedAway(t, at, { token: token({ sub: '42', channel: 'users:a' }) }), 3500);
    await connect(t, at, { token: token({ sub: '42' }) });
  });

  test(`${format}: a connection whose token is not renewed ends`, async (t) => {
    const client = await connect(t, at, { token: token({ sub: '42', ends: 1 }), getToken: () => new Promise(() => {}) });
    // The library is told to come back with a new token, and waits for one.
    const { state } = await client.states.find(({ code }) => code === 3005, 'the end');
    assert.equal(state, 'connecting');
  });

  test(`${format}: channels are for those whom their names or tokens name`, async (t) => {
    const client = await connect(t, at, { token: token({ sub: '42' }) });
    const anonymous = await connect(t, at);
    assert.equal((await refusal(client, fresh('users:a#43,44'))).code, 103);
    assert.equal((await refusal(anonymous, fresh('users:'))).code, 103);
    await subscribe(client, `${fresh('users:')}#41,42`);
    const channel = fresh('$closed:');
    assert.equal((await refusal(client, channel)).code, 103);
    const other = fresh('$closed:');
    const subscription = await subscribe(client, other, { token: token({ sub: '42', channel: other }) });
    await at.publish(other, 'for you');
    await subscription.inbox.count(1, 'publications');
    assert.deepEqual(data(subscription.inbox), ['for you']);
  });

  test(`${format}: a subscription outlives its token when it is renewed`, async (t) => {
    const client = await connect(t, at, { token: token({ sub: '42' }) });
    const channel = fresh('$closed:');
    const asked = new Inbox();
    const getToken = async () => {
      asked.push('asked');
      return token({ sub: '42', channel, ends: asked.all.length < 3 ? 1 : 600 });
    };
    const subscription = await subscribe(client, channel, { token: token({ sub: '42', channel, ends: 1 }), getToken });
    const begun = new Inbox();
    subscription.on('subscribing', (context) => begun.push(context));
    await asked.count(3, 'new tokens');
    await at.publish(channel, 'still there');
    await subscription.inbox.count(1, 'publications');
    assert.deepEqual(begun.all, [], 'it was never subscribed anew');
  });

  test(`${format}: a token brings channels along, which recover`, async (t) => {
    const channel = fresh('kept:');
    const inbox = new Inbox();
    const subscribed = new Inbox();
    const user = await connect(t, at, { token: token({ sub: '42', channels: [channel] }) });
    user.on('publication', (publication) => inbox.push({ ...publication, data: unpack(at, publication.data) }));
    user.on('subscribed', (context) => subscribed.push(context));
    await at.publish(channel, 1);
    await inbox.count(1, 'publications');
    user.disconnect();
    await at.publish(channel, 2);
    await at.publish(channel, 3);
    user.connect();
    await inbox.count(3, 'publications');
    assert.deepEqual(data(inbox), [1, 2, 3]);
    const [{ recovered, wasRecovering }] = subscribed.all.slice(-1);
    assert.deepEqual([recovered, wasRecovering], [true, true]);
  });

  test(`${format}: a backend ends a subscription and prolongs a connection`, async (t) => {
    const user = fresh('u');
    const client = await connect(t, at, { token: token({ sub: user, ends: 1 }), getToken: () => new Promise(() => {}) });
    await at.call('refresh', { user, expire_at: Math.floor(Date.now() / 1000) + 600 });
    const channel = fresh('users:');
    const subscription = await subscribe(client, channel);
    const gone = within(new Promise((resolve) => subscription.once('unsubscribed', resolve)), 'unsubscribed');
    await at.call('unsubscribe', { user, channel });
    assert.equal((await gone).code, 2000);
    const again = await subscribe(client, fresh('users:'));
    // The token ended long before this.
    await within(new Promise((resolve) => setTimeout(resolve, 2500)), 'the end of the first token');
    await at.publish(again.channel, 'still there');
    await again.inbox.count(1, 'publications');
    assert.equal(client.states.all.length, 2, JSON.stringify(client.states.all));
  });

  test(`${format}: a backend gives a user a channel, and takes it`, async (t) => {
    const user = fresh('u');
    const client = await connect(t, at, { token: token({ sub: user }) });
    const [inbox, subscribed, ended] = [new Inbox(), new Inbox(), new Inbox()];
    client.on('publication', (publication) => inbox.push({ ...publication, data: unpack(at, publication.data) }));
    client.on('subscribed', (context) => subscribed.push(context));
    client.on('unsubscribed', (context) => ended.push(context));
    const channel = fresh('kept:');
    await at.publish(channel, 'before');
    await at.call('subscribe', { user, channel, data: { for: 'you' } });
    await subscribed.count(1, 'subscribed');
    const [{ channel: given, recoverable, streamPosition, data: told }] = subscribed.all;
    assert.deepEqual([given, recoverable, streamPosition.offset], [channel, true, 1]);
    assert.deepEqual(unpack(at, told), { for: 'you' });
    await at.publish(channel, 'now');
    await inbox.count(1, 'publications');
    assert.deepEqual(data(inbox), ['now']);
    const id = client.states.all.at(-1).client;
    const { connections } = await at.call('connections', { user });
    const { format: protocol } = at;
    assert.deepEqual(connections, { [id]: { user, transport: 'websocket', protocol, state: { channels: { [channel]: {} } } } });
    await at.call('unsubscribe', { user, channel });
    await ended.count(1, 'unsubscribed');
    assert.equal(ended.all[0].channel, channel);
  });

  test(`${format}: a backend disconnects a user, and nobody else`, async (t) => {
    const user = fresh('u');
    const [one, other] = [await connect(t, at, { token: token({ sub: user }) }), await connect(t, at, { token: token({ sub: 'x' }) })];
    await at.call('disconnect', { user });
    const { code } = await one.states.find(({ state }) => state === 'disconnected', 'disconnected');
    assert.equal(code, 3503);
    await subscribe(other, fresh('users:'));
    assert.equal(other.states.all.length, 2);
  });
}
