// Who is subscribed, as the unmodified npm client `centrifuge` and a backend see it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FORMATS, Inbox, connect, fresh, gateway, within } from './support.mjs';

// Subscribes; `others` keeps who came and went, as [what, client id].
async function listen(client, channel, options = {}) {
  const subscription = client.newSubscription(channel, options);
  subscription.others = new Inbox();
  subscription.on('join', ({ info }) => subscription.others.push(['join', info.client]));
  subscription.on('leave', ({ info }) => subscription.others.push(['leave', info.client]));
  subscription.subscribe();
  await within(subscription.ready(), `subscribed to ${channel}`);
  return subscription;
}

function idOf(client) {
  return client.states.all.findLast(({ state }) => state === 'connected').client;
}

async function leave(subscription) {
  const gone = within(new Promise((resolve) => subscription.once('unsubscribed', resolve)), 'unsubscribed');
  subscription.unsubscribe();
  await gone;
}

async function codeOf(call) {
  return call.then(() => 0, ({ code }) => code);
}

for (const format of FORMATS) {
  test(`${format}: presence tells who is subscribed, to clients and to backends`, async (t) => {
    const at = gateway('strict', format);
    const [first, second] = [await connect(t, at), await connect(t, at)];
    const channel = fresh('room:');
    const mine = await listen(first, channel);
    assert.deepEqual(await mine.presenceStats(), { numClients: 1, numUsers: 1 });
    const theirs = await listen(second, channel, { joinLeave: true });
    const { clients } = await mine.presence();
    assert.deepEqual(Object.keys(clients).sort(), [idOf(first), idOf(second)].sort());
    for (const [id, info] of Object.entries(clients)) assert.equal(info.client, id);
    assert.deepEqual(await theirs.presenceStats(), { numClients: 2, numUsers: 1 });
    const told = await at.call('presence', { channel });
    assert.deepEqual(told.presence[idOf(first)], { user: '', client: idOf(first) });
    assert.deepEqual(await at.call('presence_stats', { channel }), { num_clients: 2, num_users: 1 });
    // The library says `unsubscribed` before the gateway knows; whoever listens is told when it does.
    await leave(mine);
    await theirs.others.find(([what]) => what === 'leave', 'leave');
    assert.deepEqual(Object.keys((await theirs.presence()).clients), [idOf(second)]);
    assert.deepEqual(await at.call('presence_stats', { channel }), { num_clients: 1, num_users: 1 });
    const empty = { channel: fresh('room:') };
    assert.deepEqual(await at.call('presence', empty), { presence: {} });
    assert.deepEqual(await at.call('presence_stats', empty), { num_clients: 0, num_users: 0 });
  });

  test(`${format}: presence is for whom the namespace says`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    for (const [prefix, code] of [['room:', 103], ['hall:', 103], ['news:', 108], ['none:', 102]]) {
      assert.equal(await codeOf(client.presence(fresh(prefix))), code, prefix);
      assert.equal(await codeOf(client.presenceStats(fresh(prefix))), code, prefix);
    }
    const room = await listen(client, fresh('room:'));
    assert.equal(await codeOf(room.presence()), 0);
  });

  test(`${format}: who asks is told who comes and goes, itself included`, async (t) => {
    const at = gateway('strict', format);
    const [first, second] = [await connect(t, at), await connect(t, at)];
    const channel = fresh('room:');
    const mine = await listen(first, channel, { joinLeave: true });
    await mine.others.count(1, 'joins');
    const theirs = await listen(second, channel);
    await mine.others.count(2, 'joins');
    await leave(theirs);
    await mine.others.count(3, 'joins and leaves');
    const id = idOf(second);
    assert.deepEqual(mine.others.all, [['join', idOf(first)], ['join', id], ['leave', id]]);
    assert.deepEqual(theirs.others.all, [], 'who does not ask is not told');
  });

  test(`${format}: a connection that dies and comes back leaves once and joins anew`, async (t) => {
    const at = gateway('strict', format);
    const [first, second] = [await connect(t, at), await connect(t, at)];
    const channel = fresh('hall:');
    const mine = await listen(first, channel);
    await listen(second, channel);
    const before = idOf(second);
    await mine.others.count(2, 'joins');
    await at.call('disconnect', { user: '', client: before, disconnect: { code: 4000, reason: 'again' } });
    await mine.others.count(4, 'joins and leaves');
    // It sends connect and subscribe together, so others may hear of its join before it hears that it is connected.
    const anew = ({ state, client }) => state === 'connected' && client !== before;
    const { client: after } = await second.states.find(anew, 'connected anew');
    assert.deepEqual(mine.others.all.slice(1), [['join', before], ['leave', before], ['join', after]]);
  });
}
