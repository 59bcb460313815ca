// What the gateway keeps, as the unmodified npm client `centrifuge` and a backend see it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FORMATS, Inbox, connect, data, fence, fresh, gateway, subscribe, unpack, within } from './support.mjs';


// Subscribes; `subscribed` keeps how each (re)subscribe went, `inbox` every publication.
async function follow(client, channel, options = {}) {
  const subscription = client.newSubscription(channel, options);
  subscription.inbox = new Inbox();
  subscription.subscribed = new Inbox();
  subscription.on('publication', (publication) => {
    subscription.inbox.push({ ...publication, data: unpack(client.at, publication.data) });
  });
  subscription.on('subscribed', (context) => subscription.subscribed.push(context));
  subscription.subscribe();
  await within(subscription.ready(), `subscribed to ${channel}`);
  return subscription;
}

// Away and back again; `meanwhile` happens in between.
async function away(client, meanwhile) {
  const gone = within(new Promise((resolve) => client.once('disconnected', resolve)), 'disconnected');
  client.disconnect();
  await gone;
  await meanwhile();
  client.connect();
  await within(client.ready(), 'connected again');
}

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, n) => from + n);

for (const format of FORMATS) {
  test(`${format}: a client that was away gets what it missed, in order and once`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const kept = await follow(client, fresh('kept:'));
    const [first] = kept.subscribed.all;
    assert.deepEqual([first.recoverable, first.positioned, first.wasRecovering], [true, true, false]);
    assert.match(first.streamPosition.epoch, /^[a-zA-Z]{8}$/);
    for (const n of range(1, 3)) await at.publish(kept.channel, n);
    await kept.inbox.count(3, 'publications');
    await away(client, async () => {
      for (const n of range(4, 60)) await at.publish(kept.channel, n);
    });
    const again = await kept.subscribed.find((context) => context.wasRecovering, 'return');
    assert.equal(again.recovered, true);
    await at.publish(kept.channel, 61);
    await kept.inbox.count(61, 'publications');
    assert.deepEqual(data(kept.inbox), range(1, 61));
    assert.deepEqual(kept.inbox.all.map(({ offset }) => offset), range(1, 61));
    assert.deepEqual((await fence(at, kept))[0], range(1, 61));
  });

  test(`${format}: connections killed again and again cost nothing`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const kept = await follow(client, fresh('kept:'));
    for (const n of range(1, 200)) {
      await at.publish(kept.channel, n);
      if (n % 20 === 0) {
        // It may be behind, but by less than the hundred that are kept: a machine that publishes the lot while the client
        // still waits to come back would make a gap, and rightly.
        await kept.inbox.count(n - 20, 'publications');
        client._transport?._transport?.terminate();
      }
    }
    await kept.inbox.find((publication) => publication.data === 200, 'the last publication');
    assert.deepEqual(data(kept.inbox), range(1, 200));
    assert.ok(kept.subscribed.all.length > 1, 'it did come back');
    assert.ok(kept.subscribed.all.slice(1).every((context) => context.recovered));
  });

  test(`${format}: a client that was away for too long is told so`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const few = await follow(client, fresh('few:'));
    await at.publish(few.channel, 1);
    await few.inbox.count(1, 'publications');
    await away(client, async () => {
      for (const n of range(2, 4)) await at.publish(few.channel, n);
    });
    const gap = await few.subscribed.find((context) => context.wasRecovering, 'return');
    assert.equal(gap.recovered, false);
    assert.deepEqual((await fence(at, few))[0], [1]);
    // One less, and it is recovered: the two kept are those it missed (the fence was the fifth).
    await away(client, async () => {
      for (const n of range(6, 7)) await at.publish(few.channel, n);
    });
    const whole = await few.subscribed.find((context) => context.recovered, 'recovery');
    assert.equal(whole.wasRecovering, true);
    await few.inbox.find((publication) => publication.data === 7, 'the last one');
    assert.deepEqual(data(few.inbox).filter((item) => typeof item === 'number'), [1, 6, 7]);
  });

  test(`${format}: in cache mode a client begins with the newest publication if it asks for it`, async (t) => {
    const at = gateway('strict', format);
    const channel = fresh('latest:');
    for (const n of range(1, 5)) await at.publish(channel, n);
    const client = await connect(t, at);
    const asks = await follow(client, channel, { since: {} });
    await asks.inbox.count(1, 'publications');
    assert.deepEqual([data(asks.inbox), asks.subscribed.all[0].recovered], [[5], true]);
    const other = await connect(t, at);
    assert.deepEqual((await fence(at, await subscribe(other, channel)))[0], []);
  });

  test(`${format}: a subscriber reads the history in pages from both ends`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const kept = await follow(client, fresh('kept:'));
    const places = [];
    for (const n of range(1, 5)) places.push(await at.publish(kept.channel, n));
    const { epoch } = places[0];
    assert.deepEqual(places, range(1, 5).map((offset) => ({ offset, epoch })));
    const numbers = (page) => page.publications.map((publication) => unpack(at, publication.data));
    const position = await kept.history({ limit: 0 });
    assert.deepEqual([numbers(position), position.offset, position.epoch], [[], 5, epoch]);
    assert.deepEqual(numbers(await kept.history({ limit: 2 })), [1, 2]);
    assert.deepEqual(numbers(await kept.history({ limit: 2, since: { offset: 2, epoch } })), [3, 4]);
    assert.deepEqual(numbers(await kept.history({ limit: -1, reverse: true })), [5, 4, 3, 2, 1]);
    assert.deepEqual(numbers(await kept.history({ limit: 1, since: { offset: 3, epoch }, reverse: true })), [2]);
    const foreign = kept.history({ limit: 1, since: { offset: 1, epoch: 'abcdefgh' } });
    await assert.rejects(within(foreign, 'reply'), ({ code }) => code === 112);
    // Who is not subscribed may not read here.
    await assert.rejects(within(client.history(fresh('kept:'), { limit: 1 }), 'reply'), ({ code }) => code === 103);
    await assert.rejects(within(client.history(fresh('news:'), { limit: 1 }), 'reply'), ({ code }) => code === 108);
  });

  test(`${format}: with deltas nothing is lost or mixed up by killed connections`, async (t) => {
    const at = gateway('strict', format);
    const client = await connect(t, at);
    const patches = new Inbox();
    const watch = () => {
      client._transport._transport.addEventListener('message', (event) => patches.push(Buffer.from(event.data).length));
    };
    const kept = await follow(client, fresh('kept:'), { delta: 'fossil' });
    const report = (n) => ({ n, place: 'Übersee 🌊', text: 'só um texto — 文字 '.repeat(20), odd: 'é'.repeat(n % 5) });
    const length = Buffer.byteLength(JSON.stringify(report(1)));
    watch();
    for (const n of range(1, 100)) {
      await at.publish(kept.channel, report(n));
      if (n % 20 === 0) {
        await kept.inbox.count(n - 5, 'publications');
        const lost = new Promise((resolve) => client.once('connecting', resolve));
        client._transport._transport.terminate();
        await within(lost, 'end of the connection');
        await within(client.ready(), 'connected again');
        watch();
      }
    }
    await kept.inbox.find((publication) => publication.data.n === 100, 'the last publication');
    assert.deepEqual(data(kept.inbox), range(1, 100).map(report));
    assert.ok(kept.subscribed.all.slice(1).every((context) => context.recovered) && kept.subscribed.all.length > 1);
    assert.ok(patches.all.filter((bytes) => bytes < length / 2).length > 20, `${patches.all}: some are patches`);
    // What is read of the history is whole.
    const page = await kept.history({ limit: 2, reverse: true });
    assert.deepEqual(page.publications.map((publication) => unpack(at, publication.data)), [100, 99].map(report));
  });
}

test('a backend reads, drops and repeats', async () => {
  const at = gateway('strict');
  const channel = fresh('kept:');
  const publish = (more) => at.call('publish', { channel, ...more });
  const first = await publish({ data: { n: 1 }, tags: { lang: 'pt' }, idempotency_key: 'once' });
  assert.deepEqual(await publish({ data: { n: 'again' }, idempotency_key: 'once' }), first);
  assert.deepEqual(await publish({ data: { n: 2 }, version: 7 }), { offset: 2, epoch: first.epoch });
  assert.deepEqual(await publish({ data: { n: 'older' }, version: 6 }), { offset: 2, epoch: first.epoch });
  assert.deepEqual(await publish({ data: { n: 'passing' }, skip_history: true }), {});
  const { publications, offset, epoch } = await at.call('history', { channel, limit: 10 });
  assert.deepEqual([offset, epoch], [2, first.epoch]);
  assert.deepEqual(publications.map((publication) => publication.data), [{ n: 1 }, { n: 2 }]);
  assert.deepEqual(publications[0].tags, { lang: 'pt' });
  const age = Date.now() - publications[0].time;
  assert.ok(Math.abs(age) < 60_000, `published ${age} ms ago`);
  assert.deepEqual(await at.call('history_remove', { channel }), {});
  assert.deepEqual(await at.call('history', { channel, limit: 10 }), { publications: [], offset: 2, epoch });
  const foreign = await at.post('history', { channel, limit: 1, since: { offset: 1, epoch: 'abcdefgh' } });
  assert.equal((await foreign.json()).error.code, 112);
  const none = await at.post('history', { channel: fresh('news:'), limit: 1 });
  assert.equal((await none.json()).error.code, 108);
});
