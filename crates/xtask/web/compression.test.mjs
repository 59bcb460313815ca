// permessage-deflate in Chromium: several channels that take turns on one connection, every publication as it was published.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { API, DEADLINE_MS, PUBLIC, call, launch, open } from "./support.mjs";

const CHANNELS = ["demo:a", "demo:b", "demo:c"].map((name) => `${name}-${process.pid}`);
const TURNS = 60;
let browser;

before(async () => {
  browser = await launch();
});
after(() => browser?.close());

/** The sum of the samples of a counter, over its labels that start with `labels`. */
async function counted(name, labels) {
  const response = await fetch(`${API}/metrics`, { signal: AbortSignal.timeout(DEADLINE_MS) });
  const lines = (await response.text()).split("\n").filter((line) => line.startsWith(`${name}{${labels}`));
  assert.notEqual(lines.length, 0, `there is no metric ${name}{${labels}`);
  return lines.reduce((sum, line) => sum + Number(line.split(" ").at(-1)), 0);
}

/** Text that resembles the one before, with characters of every length in UTF-8, now and then long. */
function publication(channel, turn) {
  const body = turn % 7 === 0 ? "αβγ 水 🌊 tide ".repeat(200) : "αβγ 水 🌊 the tide is turning";
  return JSON.stringify({ channel, turn, body, state: turn % 5 ? "unchanged" : `changed ${turn * 7919}` });
}

test("channels that take turns arrive in Chromium byte for byte", { timeout: 4 * DEADLINE_MS }, async () => {
  const kind = 'kind="publication_';
  const before = await counted("tidegate_compressed_messages_total", kind);
  // The demo page's own connection never comes about, as it would be counted too.
  const page = await open(browser, PUBLIC, {}, (context) => context.addInitScript(() => {
    window.GenuineWebSocket = WebSocket;
    window.WebSocket = class extends EventTarget { send() {} close() {} };
  }));
  const extensions = await page.evaluate(([channels, url]) => new Promise((resolve, reject) => {
    window.lines = [];
    const socket = (window.socket = new GenuineWebSocket(url));
    let joined = 0;
    socket.onopen = () => {
      const subscribe = channels.map((channel, at) => JSON.stringify({ id: at + 2, subscribe: { channel } }));
      socket.send([JSON.stringify({ id: 1, connect: {} }), ...subscribe].join("\n"));
    };
    socket.onclose = (event) => reject(new Error(`closed with ${event.code} ${event.reason}`));
    socket.onmessage = ({ data }) => {
      for (const line of data.split("\n")) {
        const reply = JSON.parse(line);
        if (line === "{}") socket.send("{}");
        else if (reply.error) reject(new Error(line));
        else if (reply.push?.pub) window.lines.push(line);
        else if (reply.subscribe && ++joined === channels.length) resolve(socket.extensions);
      }
    };
  }), [CHANNELS, `${PUBLIC.replace(/^http/, "ws")}/connection/websocket`]);
  assert.match(extensions, /^permessage-deflate/);

  const published = [];
  for (let turn = 0; turn < TURNS; turn++) {
    // One channel twice in a row now and then, so that some publications follow one of their own channel.
    for (const channel of turn % 3 ? CHANNELS : [CHANNELS[0], CHANNELS[0], CHANNELS[1], CHANNELS[2]]) {
      const data = publication(channel, turn);
      published.push({ channel, data });
      await call("publish", { channel, data: JSON.parse(data) });
    }
  }
  await page.waitForFunction((count) => window.lines.length >= count, published.length);
  const lines = await page.evaluate(() => window.lines);
  assert.equal(lines.length, published.length);
  for (const channel of CHANNELS) {
    const got = lines.filter((line) => line.includes(`"channel":"${channel}"`) && JSON.parse(line).push.channel === channel);
    const made = published.filter((one) => one.channel === channel);
    assert.equal(got.length, made.length, channel);
    made.forEach(({ data }, at) => assert.ok(got[at].includes(`"data":${data}`), `${channel}, publication ${at}: ${got[at]}`));
  }
  const compressed = (await counted("tidegate_compressed_messages_total", kind)) - before;
  assert.equal(compressed, published.length, "every publication travelled compressed");
  assert.deepEqual(page.complaints, []);
  await page.evaluate(() => { window.socket.onclose = null; window.socket.close(); });
  await page.context().close();
});
