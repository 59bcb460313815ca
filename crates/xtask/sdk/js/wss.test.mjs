// The unmodified npm client `centrifuge` over TLS: what it gets, and that it connects to nobody whom it does not trust.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { WebSocket } from 'ws';
import { FORMATS, Inbox, connect, fence, fresh, gateway, pack, subscribe, within } from './support.mjs';

const ca = readFileSync(process.env.TIDEGATE_CERTIFICATE);
process.env.TIDEGATE_TEST_WSS_URL = process.env.TIDEGATE_URL.replace('127.0.0.1', 'localhost');
process.env.TIDEGATE_TEST_WSS_API = process.env.TIDEGATE_API;

// The library's WebSocket with TLS options of our own, and what went wrong on each.
function trusting(options, wrongs = new Inbox()) {
  return class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, options);
      this.on('error', (error) => wrongs.push(error));
    }
  };
}

for (const format of FORMATS) {
  test(`clients publish to each other and the API to both, in ${format}`, async (t) => {
    const at = gateway('wss', format);
    assert.match(at.websocket, /^wss:\/\/localhost:/);
    const clients = [];
    for (const number of [0, 1]) clients[number] = await connect(t, at, { websocket: trusting({ ca }) });
    const channel = fresh('chat:');
    const [one, two] = [await subscribe(clients[0], channel), await subscribe(clients[1], channel)];
    const published = [{ n: 1 }, '文字 🌊', 'x'.repeat(40_000), ...Array.from({ length: 50 }, (_, n) => ({ n }))];
    for (const [turn, item] of published.entries()) {
      if (turn % 2) await within(one.publish(pack(at, item)), 'answer to a publish');
      else await at.publish(channel, item);
    }
    for (const { inbox } of [one, two]) await inbox.count(published.length, 'publications');
    assert.deepEqual(await fence(at, one, two), [published, published]);
  });
}

test('whoever does not trust the certificate does not connect, and whoever does connects', async (t) => {
  const at = gateway('wss');
  for (const [options, code] of [
    [{}, 'DEPTH_ZERO_SELF_SIGNED_CERT'],
    [{ ca, servername: 'localhosu' }, 'ERR_TLS_CERT_ALTNAME_INVALID'],
  ]) {
    const wrongs = new Inbox();
    // It goes on trying until the test ends.
    const refused = connect(t, at, { websocket: trusting(options, wrongs) });
    refused.catch(() => {});
    await wrongs.count(2, 'refusals');
    assert.deepEqual([...new Set(wrongs.all.map((wrong) => wrong.code))], [code]);
  }
  const client = await connect(t, at, { websocket: trusting({ ca, servername: 'localhost' }) });
  assert.equal(client.states.all.at(-1).state, 'connected');
});

test('a client is not spoken to below TLS 1.2', async (t) => {
  const at = gateway('wss');
  const version = (maxVersion) => ({ ca, minVersion: 'TLSv1', maxVersion, ciphers: 'DEFAULT@SECLEVEL=0' });
  const wrongs = new Inbox();
  new (trusting(version('TLSv1.1'), wrongs))(at.websocket);
  const { message } = await wrongs.find(() => true, 'refusal');
  assert.match(message, /alert (handshake failure|protocol version)/);
  await connect(t, at, { websocket: trusting(version('TLSv1.2')) });
});
