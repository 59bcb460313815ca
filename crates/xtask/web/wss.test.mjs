// Chromium over TLS: the demo page, and a bare WebSocket of its own, from a gateway whose certificate it was told to trust.

import assert from "node:assert/strict";
import { X509Certificate, createHash } from "node:crypto";
import fs from "node:fs";
import { after, test } from "node:test";
import { DEADLINE_MS, PUBLIC, finish, launch, open, publish } from "./support.mjs";

const URL_OF_PAGE = `${PUBLIC.replace("127.0.0.1", "localhost")}/`;
const certificate = new X509Certificate(fs.readFileSync(process.env.TIDEGATE_CERTIFICATE));
const key = certificate.publicKey.export({ type: "spki", format: "der" });
const browsers = [];

async function trusting(hash) {
  const browser = await launch([`--ignore-certificate-errors-spki-list=${hash.toString("base64")}`]);
  browsers.push(browser);
  return browser;
}

after(() => Promise.all(browsers.map((browser) => browser.close())));

test("the demo page is live, and a bare WebSocket gets what is published", { timeout: 4 * DEADLINE_MS }, async () => {
  assert.match(URL_OF_PAGE, /^https:/);
  const page = await open(await trusting(createHash("sha256").update(key).digest()), URL_OF_PAGE);
  await page.waitForSelector('body[data-phase="live"]');
  const channel = `demo:wss-${process.pid}`;
  await page.evaluate(([channel, url]) => new Promise((resolve, reject) => {
    window.lines = [];
    const socket = (window.socket = new WebSocket(url));
    socket.onopen = () => socket.send([{ id: 1, connect: {} }, { id: 2, subscribe: { channel } }].map((it) => JSON.stringify(it)).join("\n"));
    socket.onclose = ({ code, reason }) => reject(new Error(`closed with ${code} ${reason}`));
    socket.onmessage = ({ data }) => {
      for (const line of data.split("\n")) {
        const reply = JSON.parse(line);
        if (line === "{}") socket.send("{}");
        else if (reply.error) reject(new Error(line));
        else if (reply.push?.pub) window.lines.push(reply.push.pub.data);
        else if (reply.subscribe) resolve();
      }
    };
  }), [channel, `${URL_OF_PAGE.replace(/^http/, "ws")}connection/websocket`]);
  const published = [{ n: 1 }, "αβγ 水 🌊", "x".repeat(40_000), ...Array.from({ length: 50 }, (_, n) => ({ n }))];
  for (const data of published) await publish(channel, data);
  await page.waitForFunction((count) => window.lines.length >= count, published.length);
  assert.deepEqual(await page.evaluate(() => window.lines), published);
  await finish(page);
});

test("a certificate with another key is not accepted", async () => {
  // One byte of the hash is another.
  const other = createHash("sha256").update(key).digest();
  other[0] ^= 1;
  await assert.rejects(open(await trusting(other), URL_OF_PAGE), /ERR_CERT_AUTHORITY_INVALID/);
});
