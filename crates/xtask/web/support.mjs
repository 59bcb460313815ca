// What the page tests share: Chromium, pages that tell what went wrong in them, the server API, a line that can be cut.

import assert from "node:assert/strict";
import http from "node:http";
import net from "node:net";
import { chromium } from "playwright-core";

// Longest wait for anything. A healthy gateway and browser need milliseconds; a machine that compiles needs more.
export const DEADLINE_MS = 30_000;

function told(variable) {
  const value = process.env[variable];
  assert.ok(value, `${variable} is not set: run these tests by \`cargo xtask test --only page\``);
  return value;
}

export const PUBLIC = told("TIDEGATE_URL").replace(/\/$/, "");
export const API = told("TIDEGATE_API").replace(/\/$/, "");
export const SCREENSHOTS = told("SCREENSHOT_DIR");

export function launch(more = []) {
  // Chromium refuses to run as root with its sandbox; nothing but our own pages is opened here.
  const args = process.getuid() === 0 ? ["--no-sandbox"] : [];
  return chromium.launch({ executablePath: told("CHROMIUM"), args: [...args, ...more] });
}

/** Calls a method of the server API and gives its `result`; anything else fails the test. */
export async function call(method, body) {
  const response = await fetch(`${API}/api/${method}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(DEADLINE_MS),
  });
  const answer = await response.text();
  assert.equal(response.status, 200, `${method}: ${answer}`);
  const { result, error } = JSON.parse(answer);
  assert.equal(error, undefined, `${method}: ${answer}`);
  return result;
}

/** Waits for something outside a page. */
export async function until(condition) {
  const deadline = Date.now() + DEADLINE_MS;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `not within ${DEADLINE_MS} ms: ${condition}`);
    await new Promise((turn) => setTimeout(turn, 10));
  }
}

export const publish = (channel, data) => call("publish", { channel, data });

/**
 * A page in a context of its own. `page.complaints` collects what the console calls an error, exceptions, and requests
 * to another origin; `page.phases` what state the page has told its reader, in order.
 */
export async function open(browser, url, options = {}, prepare = async () => {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  context.setDefaultTimeout(DEADLINE_MS);
  await prepare(context);
  const page = await context.newPage();
  page.complaints = [];
  page.phases = [];
  page.on("console", (message) => message.type() === "error" && page.complaints.push(message.text()));
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(url).origin) page.complaints.push(`foreign request: ${request.url()}`);
  });
  await page.exposeFunction("tellPhase", (phase) => page.phases.push(phase));
  await page.addInitScript(watchPhases);
  await page.goto(url);
  return page;
}

// Runs in the page. A state that lasts half a second must not be missed, so every change is told.
function watchPhases() {
  document.addEventListener("DOMContentLoaded", () => {
    const state = document.getElementById("state-text");
    if (!state) return;
    let last = "";
    const tell = () => {
      const told = JSON.stringify([document.body.dataset.phase, state.textContent, document.getElementById("about").textContent]);
      if (told !== last) window.tellPhase(JSON.parse(told));
      last = told;
    };
    new MutationObserver(tell).observe(document.body, { attributes: true, subtree: true, childList: true, characterData: true });
    tell();
  });
}

/** Waits until the page has shown `count` more readings of the machine. */
export async function readings(page, count) {
  const seen = () => page.locator("#machine").evaluate((sheet) => Number(sheet.dataset.readings ?? 0));
  const goal = (await seen()) + count;
  await page.waitForFunction((n) => Number(document.getElementById("machine").dataset.readings ?? 0) >= n, goal);
}

/** A live demo page. */
export async function openDemo(browser, options = {}, url = `${PUBLIC}/`) {
  const page = await open(browser, url, options);
  await page.waitForSelector('body[data-phase="live"]');
  await readings(page, 1);
  return page;
}

export async function finish(page, { allowed } = {}) {
  const complaints = page.complaints.filter((text) => !allowed?.test(text));
  await page.context().close();
  assert.deepEqual(complaints, [], "the console stays clean");
}

/** A port of our own in front of the gateway: cutting it is what a train does in a tunnel. */
export async function line() {
  const sockets = new Set();
  let open = true;
  const server = net.createServer((near) => {
    if (!open) {
      near.destroy();
      return;
    }
    const far = connectGateway();
    for (const [one, other] of [[near, far], [far, near]]) {
      sockets.add(one);
      one.on("error", () => other.destroy());
      one.on("close", () => (sockets.delete(one), other.destroy()));
    }
    near.pipe(far).pipe(near);
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      open = false;
      for (const socket of sockets) socket.destroy();
    },
    mend() {
      open = true;
    },
    close() {
      this.cut();
      return new Promise((closed) => server.close(closed));
    },
  };
}

/**
 * Serves one HTML text on an origin of its own; `html` is given that origin. With `gateway`, WebSockets of the same origin
 * go on to the gateway, so that to a browser the text is a page of the gateway.
 */
export async function serve(html, { gateway = false } = {}) {
  const server = http.createServer((request, response) => {
    response.writeHead(request.url === "/" ? 200 : 204, { "Content-Type": "text/html; charset=utf-8" });
    response.end(request.url === "/" ? html(origin) : undefined);
  });
  const sockets = new Set();
  if (gateway) server.on("upgrade", (request, near) => sockets.add(near).add(passOn(request, near)));
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    url: `${origin}/`,
    close: () => {
      server.closeAllConnections();
      for (const socket of sockets) socket.destroy();
      return new Promise((closed) => server.close(closed));
    },
  };
}

function connectGateway() {
  const { hostname, port } = new URL(PUBLIC);
  return net.connect(Number(port), hostname.replace(/[[\]]/g, ""));
}

// The head goes on as it came, Host and Origin with it.
function passOn({ method, url, rawHeaders }, near) {
  const far = connectGateway();
  far.on("error", () => near.destroy());
  near.on("error", () => far.destroy());
  const lines = [`${method} ${url} HTTP/1.1`];
  for (let at = 0; at < rawHeaders.length; at += 2) lines.push(`${rawHeaders[at]}: ${rawHeaders[at + 1]}`);
  far.write(`${lines.join("\r\n")}\r\n\r\n`);
  near.pipe(far).pipe(near);
  return far;
}
