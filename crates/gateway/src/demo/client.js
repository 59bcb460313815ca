// The Centrifugo JSON dialect over a bare WebSocket: as much of it as this page needs, without a library.
//
// One frame carries one or more JSON objects joined by newlines. A command has an id, and its reply repeats it;
// a reply without an id is a push, or, when it is empty, a ping.

const CONNECT_MS_MAX = 8_000; // from opening the socket to the reply to `connect`
const REPLY_MS_MAX = 8_000; // from any other command to its reply
const SILENCE_GRACE_MS = 10_000; // beyond the ping interval that the server names
const PROVEN_MS = 10_000; // a connection that lived this long starts the back-off anew
const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 20_000;

/** Full jitter over a doubling range, so that the clients of a restarted server do not come back in one wave. */
export function backoffMs(attempt, random = Math.random()) {
  const range = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** attempt);
  return Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN + random * range);
}

/** Close codes after which coming back is pointless: the server would refuse again. */
export function isTerminal(code) {
  return code === 1009 || (code >= 3500 && code <= 3999) || (code >= 4500 && code <= 4999);
}

/** An error reply of the server, or our own `timeout` and `disconnected` (code 0). */
export class ReplyError extends Error {
  constructor(code, message, temporary) {
    super(code ? `${code} ${message}` : message);
    this.code = code;
    this.temporary = temporary;
  }
}

/**
 * Keeps one connection and its subscriptions alive.
 *
 * `handlers.state(state)` is called with `{phase: "connecting"}`, `{phase: "live", client}`,
 * `{phase: "waiting", until, code, reason}` (`until` as performance.now() counts) or `{phase: "ended", code, reason}`.
 * `handlers.publication(channel, publication)` and `handlers.subscription(channel, error)`; error is null when it stands.
 */
export class Client {
  #url;
  #channels;
  #handlers;
  #socket = null;
  #phase = "ended";
  #ids = 0;
  #replies = new Map(); // id -> { resolve, reject, timer }
  #attempt = 0;
  #liveSince = 0;
  #silenceMs = 0; // 0: the server sends no pings
  #pong = false;
  #timers = { connect: 0, retry: 0, silence: 0 };
  #resubscribes = new Map(); // channel -> timer

  constructor(url, channels, handlers) {
    this.#url = url;
    this.#channels = channels;
    this.#handlers = handlers;
  }

  /** Connects now, also from the middle of a wait or after the end. Does nothing while connecting or live. */
  connect() {
    if (this.#phase === "connecting" || this.#phase === "live") return;
    clearTimeout(this.#timers.retry);
    this.#enter({ phase: "connecting" });
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    const current = (act) => (event) => this.#socket === socket && act(event);
    socket.onopen = current(() => this.#opened());
    socket.onmessage = current((event) => this.#received(event.data));
    socket.onclose = current((event) => this.#lost(event.code, event.reason));
    this.#timers.connect = setTimeout(
      current(() => this.#lost(0, "no answer to the connect command")),
      CONNECT_MS_MAX,
    );
  }

  /** Resolves when the server has accepted the publication; rejects with a ReplyError. */
  publish(channel, data) {
    if (this.#phase !== "live") return Promise.reject(new ReplyError(0, "not connected", true));
    return this.#request({ publish: { channel, data } });
  }

  #enter(state) {
    this.#phase = state.phase;
    this.#handlers.state(state);
  }

  // Subscriptions are pipelined behind `connect` in one frame: one round trip instead of two.
  #opened() {
    const id = ++this.#ids;
    const lines = [JSON.stringify({ id, connect: { name: "demo" } })];
    this.#expect(id).then(
      (reply) => this.#connected(reply.connect ?? {}),
      (error) => {
        if (error.code === 0) return; // the socket is gone, or the connect timer speaks first
        if (error.temporary || error.code === 109) this.#lost(error.code, error.message);
        else this.#end(error.code, error.message);
      },
    );
    for (const channel of this.#channels) lines.push(this.#subscribeLine(channel));
    this.#socket.send(lines.join("\n"));
  }

  #connected(result) {
    clearTimeout(this.#timers.connect);
    this.#liveSince = performance.now();
    this.#pong = result.pong === true;
    this.#silenceMs = result.ping > 0 ? result.ping * 1000 + SILENCE_GRACE_MS : 0;
    this.#heard();
    this.#enter({ phase: "live", client: String(result.client ?? "") });
  }

  #subscribeLine(channel) {
    const id = ++this.#ids;
    this.#expect(id).then(
      () => this.#handlers.subscription(channel, null),
      (error) => {
        if (error.code === 0) return;
        this.#handlers.subscription(channel, error);
        if (error.temporary) this.#resubscribeLater(channel);
      },
    );
    return JSON.stringify({ id, subscribe: { channel } });
  }

  #resubscribeLater(channel) {
    clearTimeout(this.#resubscribes.get(channel));
    const again = () => this.#phase === "live" && this.#socket.send(this.#subscribeLine(channel));
    this.#resubscribes.set(channel, setTimeout(again, backoffMs(2)));
  }

  #request(command) {
    const id = ++this.#ids;
    const reply = this.#expect(id);
    this.#socket.send(JSON.stringify({ id, ...command }));
    return reply;
  }

  #expect(id) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#replies.delete(id);
        reject(new ReplyError(0, "no answer", true));
      }, REPLY_MS_MAX);
      this.#replies.set(id, { resolve, reject, timer });
    });
  }

  #received(frame) {
    this.#heard();
    for (const line of String(frame).split("\n")) {
      if (line === "") continue;
      let reply;
      try {
        reply = JSON.parse(line);
      } catch {
        reply = null;
      }
      if (reply === null || typeof reply !== "object") {
        this.#lost(0, "the server sent something that is not JSON");
        return;
      }
      this.#replied(reply);
    }
  }

  #replied(reply) {
    if (reply.id > 0) {
      const waiting = this.#replies.get(reply.id);
      if (!waiting) return;
      this.#replies.delete(reply.id);
      clearTimeout(waiting.timer);
      const { error } = reply;
      if (error) waiting.reject(new ReplyError(error.code, String(error.message), error.temporary === true));
      else waiting.resolve(reply);
    } else if (reply.push) {
      this.#pushed(reply.push);
    } else if (this.#pong) {
      this.#socket.send("{}");
    }
  }

  #pushed({ channel, pub, unsubscribe }) {
    if (pub) this.#handlers.publication(channel, pub);
    if (unsubscribe) {
      this.#handlers.subscription(channel, new ReplyError(unsubscribe.code, String(unsubscribe.reason), false));
      if (unsubscribe.code >= 2500) this.#resubscribeLater(channel);
    }
  }

  // Any frame proves that the server lives, not only a ping.
  #heard() {
    clearTimeout(this.#timers.silence);
    if (this.#silenceMs > 0) {
      this.#timers.silence = setTimeout(() => this.#lost(0, "the server went silent"), this.#silenceMs);
    }
  }

  #lost(code, reason) {
    if (isTerminal(code)) {
      this.#end(code, reason);
      return;
    }
    if (this.#phase === "live" && performance.now() - this.#liveSince > PROVEN_MS) this.#attempt = 0;
    this.#drop();
    const wait = backoffMs(this.#attempt++);
    this.#timers.retry = setTimeout(() => this.connect(), wait);
    this.#enter({ phase: "waiting", until: performance.now() + wait, code, reason });
  }

  #end(code, reason) {
    this.#drop();
    this.#attempt = 0;
    this.#enter({ phase: "ended", code, reason });
  }

  // The socket is let go without waiting for its close event: offline, that may take a minute to come.
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    this.#silenceMs = 0;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    for (const timer of this.#resubscribes.values()) clearTimeout(timer);
    for (const { reject, timer } of this.#replies.values()) {
      clearTimeout(timer);
      reject(new ReplyError(0, "disconnected", true));
    }
    this.#replies.clear();
  }
}
