// A backend that answers webhooks as a test wants it, and a gateway of its own that asks it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Inbox, within } from './support.mjs';

export const EVENTS = ['connect', 'refresh', 'subscribe', 'publish', 'sub_refresh', 'rpc'];
// Where it is told of who comes and goes, beside what it is asked.
const NOTICES = 'notices';
const KEY = 'the key that these tests check with it';

// Answers of an event, by what its request says; a test replaces them. `undefined` is no answer at all.
export class Backend {
  constructor() {
    this.answers = {};
    this.pages = {};
    this.requests = new Inbox();
    this.forged = [];
    this.notices = new Inbox();
    this.told = 0;
    this.loses = false;
    this.port = 0;
  }

  async start() {
    this.sockets = new Set();
    this.server = createServer((request, response) => this.answer(request, response));
    this.server.on('connection', (socket) => this.sockets.add(socket));
    const listens = new Promise((resolve) => this.server.listen(this.port, '127.0.0.1', resolve));
    await within(listens, 'listening backend');
    this.port = this.server.address().port;
  }

  // Whoever calls is told by the kernel that nobody is there.
  async stop() {
    for (const socket of this.sockets) socket.destroy();
    await within(new Promise((resolve) => this.server.close(resolve)), 'end of the backend');
  }

  async answer(request, response) {
    if (request.method === 'GET') {
      response.end(JSON.stringify(this.pages[request.url]));
      return;
    }
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const text = Buffer.concat(chunks);
    const [, time, mac] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(request.headers['x-tidegate-signature'] ?? '') ?? [];
    const expected = createHmac('sha256', KEY).update(`${time}.`).update(text).digest('hex');
    if (mac !== expected || Math.abs(Date.now() / 1000 - time) > 60) this.forged.push(request.headers);
    const event = request.url.slice(1);
    const body = JSON.parse(text);
    if (event === NOTICES) {
      // The first time that something is told its answer is lost: it has to come again.
      const isNew = body.notices.at(-1).number > this.told;
      this.told = Math.max(this.told, body.notices.at(-1).number);
      if (isNew && this.loses) {
        request.socket.destroy();
        return;
      }
      for (const notice of body.notices) if (notice.number > this.notices.all.length) this.notices.push(notice);
      response.end();
      return;
    }
    this.requests.push({ event, body, headers: request.headers });
    const answer = this.answers[event]?.(body);
    if (answer === undefined) return;
    const { status = 200, raw = JSON.stringify(answer) } = answer;
    response.writeHead(status, { 'Content-Type': 'application/json' });
    response.end(raw);
  }

  // What one client has asked.
  of(client, event) {
    return this.requests.all.filter((it) => it.body.client === client && it.event === event);
  }
}

// A gateway that asks this backend about everything, on free ports. `end` has to be called.
export async function hooked(backend, more = {}) {
  const variables = [...EVENTS, NOTICES].map((event) => [
    `TIDEGATE_WEBHOOKS__${event.toUpperCase()}`,
    `http://127.0.0.1:${backend.port}/${event}`,
  ]);
  const { TIDEGATE_TEST_BINARY: binary, TIDEGATE_TEST_DRIVER: driver } = process.env;
  assert.ok(binary && driver, 'TIDEGATE_TEST_BINARY is not set: run these tests by `cargo xtask test --only sdk-js`');
  const config = fileURLToPath(new URL('../hooked.toml', import.meta.url));
  const addresses = ['--listen', '127.0.0.1:0', '--api-listen', '127.0.0.1:0'];
  const child = spawn(binary, ['serve', '--io', driver, '--config', config, ...addresses], {
    env: { PATH: process.env.PATH, ...Object.fromEntries(variables), ...more },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const lines = new Inbox();
  createInterface({ input: child.stderr }).on('line', (line) => lines.push(line));
  const url = async (kind) => {
    const line = await lines.find((it) => it.startsWith(`listening ${kind} http`), `address of the ${kind} listener`);
    return line.split(' ').at(-1);
  };
  const [at, api] = [await url('public'), await url('api')];
  return {
    lines,
    at: (format) => ({ kind: 'hooked', format, websocket: `${at.replace('http', 'ws')}/connection/websocket` }),
    async metric(name) {
      const text = await (await fetch(`${api}/metrics`)).text();
      const line = text.split('\n').find((it) => it.startsWith(name));
      return line === undefined ? undefined : Number(line.split(' ').at(-1));
    },
    async end(signal = 'SIGKILL') {
      assert.equal(child.exitCode, null, `the gateway has ended: ${lines.all.slice(-20).join('\n')}`);
      const ended = new Promise((resolve) => child.on('exit', resolve));
      child.kill(signal);
      return within(ended, 'end of the gateway');
    },
  };
}
