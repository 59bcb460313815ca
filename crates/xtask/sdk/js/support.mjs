// What the tests share: the two gateways, their API, clients that keep what they received, and the fence.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { Centrifuge } from 'centrifuge';
import { Centrifuge as CentrifugeProtobuf } from 'centrifuge/build/protobuf';
import { WebSocket } from 'ws';

// Longest wait for anything; a healthy gateway answers in milliseconds, a ping takes two seconds.
const DEADLINE_MS = 20_000;
export const API_KEY = 'key-of-the-client-tests';

function address(variable) {
  const url = process.env[variable];
  assert.ok(url, `${variable} is not set: run these tests by \`cargo xtask sdk\``);
  return url;
}

export const FORMATS = ['json', 'protobuf'];

// `dev` is a gateway started with `--dev` and nothing else; `strict` is one with gateway.toml. `format` is what the clients
// that are connected to it speak.
export function gateway(kind, format = 'json') {
  const url = address(`TIDEGATE_TEST_${kind.toUpperCase()}_URL`);
  const api = address(`TIDEGATE_TEST_${kind.toUpperCase()}_API`);
  return {
    kind,
    format,
    websocket: `${url.replace('http', 'ws')}/connection/websocket`,
    // The raw answer of the server API, as curl would get it.
    async post(method, body, key = kind === 'strict' ? API_KEY : undefined) {
      const headers = { 'Content-Type': 'application/json', ...(key === undefined ? {} : { 'X-API-Key': key }) };
      const init = { method: 'POST', headers, body: JSON.stringify(body), signal: AbortSignal.timeout(DEADLINE_MS) };
      return fetch(`${api}/api/${method}`, init);
    },
    // The `result` of a call that must succeed.
    async call(method, body) {
      const response = await this.post(method, body);
      assert.equal(response.status, 200, `${method}: HTTP ${response.status}`);
      const answer = await response.json();
      assert.equal(answer.error, undefined, `${method}: ${JSON.stringify(answer.error)}`);
      return answer.result;
    },
    publish(channel, data) {
      return this.call('publish', { channel, data });
    },
  };
}

// A payload as the client library takes it and gives it back: in Protobuf bytes, which for this gateway are JSON text.
export function pack(at, value) {
  return at.format === 'protobuf' ? new TextEncoder().encode(JSON.stringify(value)) : value;
}

export function unpack(at, payload) {
  return at.format === 'protobuf' ? JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload)) : payload;
}

// Whether a message is the ping, or the pong, of its format.
export function isPing(message) {
  return typeof message === 'string' ? message === '{}' : Buffer.from(message).equals(Buffer.of(0));
}

// A token that the strict gateway takes for what its backend has signed; its end is in seconds from now.
export function token({ ends, ...claims }, secret = 'the secret that these tests sign with') {
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const exp = ends === undefined ? {} : { exp: Math.floor(Date.now() / 1000) + ends };
  const message = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ ...claims, ...exp })}`;
  return `${message}.${createHmac('sha256', secret).update(message).digest('base64url')}`;
}

let names = 0;

// A channel that no other test, file or run uses.
export function fresh(prefix) {
  names += 1;
  return `${prefix}${process.pid}-${Date.now().toString(36)}-${names}`;
}

// Fulfils like `promise`, or fails by name when it takes too long.
export async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} within ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// Things that arrive one after another, kept for good, and promises for those still to come.
export class Inbox {
  constructor() {
    this.all = [];
    this.waiting = [];
  }

  push(item) {
    this.all.push(item);
    this.waiting = this.waiting.filter((check) => !check());
  }

  // The first item, past or future, that fits.
  find(fits, what) {
    const found = new Promise((resolve) => {
      const check = () => {
        const item = this.all.find(fits);
        if (item !== undefined) resolve(item);
        return item !== undefined;
      };
      if (!check()) this.waiting.push(check);
    });
    return within(found, what);
  }

  async count(n, what) {
    const enough = new Promise((resolve) => {
      const check = () => {
        if (this.all.length >= n) resolve();
        return this.all.length >= n;
      };
      if (!check()) this.waiting.push(check);
    });
    await within(enough, `${n} of ${what}`);
    return this.all;
  }
}

// A client of the npm package that is closed when the test `t` ends.
export async function connect(t, at, options = {}) {
  const client = new (at.format === 'protobuf' ? CentrifugeProtobuf : Centrifuge)(at.websocket, {
    websocket: WebSocket,
    minReconnectDelay: 20,
    maxReconnectDelay: 200,
    ...options,
  });
  client.at = at;
  client.states = new Inbox();
  client.on('connecting', ({ code, reason }) => client.states.push({ state: 'connecting', code, reason }));
  client.on('connected', (context) => client.states.push({ state: 'connected', ...context }));
  client.on('disconnected', ({ code, reason }) => client.states.push({ state: 'disconnected', code, reason }));
  t.after(() => client.disconnect());
  client.connect();
  await within(client.ready(), 'connected');
  return client;
}

// Subscribes and waits until the server has said yes; `inbox` keeps every publication from then on.
export async function subscribe(client, channel, options = {}) {
  const subscription = client.newSubscription(channel, options);
  subscription.inbox = new Inbox();
  subscription.on('publication', (publication) => {
    subscription.inbox.push({ ...publication, data: unpack(client.at, publication.data) });
  });
  subscription.subscribe();
  await within(subscription.ready(), `subscribed to ${channel}`);
  return subscription;
}

// Subscribes where the server must say no; gives the code and the reason.
export function refusal(client, channel, options = {}) {
  const subscription = client.newSubscription(channel, options);
  const refused = new Promise((resolve, reject) => {
    subscription.on('unsubscribed', ({ code, reason }) => resolve({ code, reason }));
    subscription.on('subscribed', () => reject(new Error(`${channel}: subscribed, not refused`)));
  });
  subscription.subscribe();
  return within(refused, `refusal of ${channel}`);
}

export function data(inbox) {
  return inbox.all.map((publication) => publication.data);
}

// Proves that nothing more is on its way to `subscriptions`, without waiting for time to pass: one last publication
// goes into each of their channels and, once it is there, whatever was published earlier is there too, because a
// channel keeps its order. Every subscription must be live; what arrived besides the fence is given back.
export async function fence(at, ...subscriptions) {
  const sentinel = fresh('fence-');
  for (const { channel } of subscriptions) await at.publish(channel, sentinel);
  return Promise.all(
    subscriptions.map(async ({ inbox }) => {
      await inbox.find((publication) => publication.data === sentinel, 'fence');
      return data(inbox).filter((item) => item !== sentinel);
    }),
  );
}
