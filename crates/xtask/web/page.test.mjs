// The demo page and docs/client.html against a gateway started with `--dev`, in headless Chromium.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { DEADLINE_MS, PUBLIC, SCREENSHOTS, API, call, finish, launch, line, open, openDemo, publish, readings, serve, until } from "./support.mjs";

const CLIENT_HTML = new URL("../../../docs/client.html", import.meta.url);
const run = promisify(execFile);
let browser;

before(async () => {
  fs.mkdirSync(SCREENSHOTS, { recursive: true });
  browser = await launch();
});
after(() => browser?.close());

const messages = (page) => page.locator("#log .said");
const said = (page, text) => messages(page).filter({ hasText: text });
const shown = (page, id) => page.locator(`#${id}`).innerText();
/** The states a page has gone through since `page.phases` was emptied. */
const order = (page) => page.phases.map(([phase]) => phase).filter((phase, at, all) => phase !== all[at - 1]);

const NARROW = { viewport: { width: 360, height: 740 } };
/** Nothing makes the reader scroll sideways. */
async function fits(page) {
  const [inside, outside] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
  assert.ok(inside <= outside, `${inside} px on a screen of ${outside}`);
  const overlaps = await page.evaluate(() => {
    const parts = ["h1", "#state", "#about", "#retry", "#theme"].map((name) => document.querySelector(name)).filter((part) => part.checkVisibility());
    const boxes = parts.map((part) => [part.id || "h1", part.getBoundingClientRect()]);
    const cross = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
    return boxes.flatMap(([one, a], at) => boxes.slice(at + 1).filter(([, b]) => cross(a, b)).map(([other]) => `${one} and ${other}`));
  });
  assert.deepEqual(overlaps, [], "parts of the head lie on top of each other");
}
let words = 0;
const unique = (prefix) => `${prefix} ${process.pid}-${++words}`;

/** How many pixels of a trace carry the first pen's colour. */
function inked(page, canvas) {
  return page.locator(`#${canvas}`).evaluate((strip) => {
    const probe = document.createElement("span");
    probe.style.color = getComputedStyle(document.documentElement).getPropertyValue("--pen-1");
    document.body.append(probe);
    const pen = getComputedStyle(probe).color.match(/\d+/g).map(Number);
    probe.remove();
    const { data } = strip.getContext("2d").getImageData(0, 0, strip.width, strip.height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] > 150 && pen.every((value, part) => Math.abs(value - data[at + part]) < 24)) count++;
    }
    return count;
  });
}

for (const reducedMotion of ["no-preference", "reduce"]) {
  test(`the page draws this machine, with motion ${reducedMotion}`, async () => {
    const page = await openDemo(browser, { reducedMotion });
    await readings(page, 6);

    assert.match(await shown(page, "cpu"), /^\d+\s*%$/);
    const cores = fs.readFileSync("/proc/stat", "utf8").match(/^cpu\d+ /gm).length;
    assert.equal(await page.locator("#cores .core").count(), cores);
    for (const load of await page.locator("#cores .core p").allInnerTexts()) assert.match(load, /core \d+\s+\d+ %/);

    const total = Number(fs.readFileSync("/proc/meminfo", "utf8").match(/^MemTotal:\s+(\d+) kB/m)[1]);
    const [, figure, unit] = (await shown(page, "memory-note")).match(/ % of ([\d.]+) (\wiB)$/);
    const scale = { MiB: 1024, GiB: 1024 ** 2, TiB: 1024 ** 3 }[unit];
    assert.ok(Math.abs(Number(figure) * scale - total) < total / 100, `${figure} ${unit} is not ${total} KiB`);

    const network = await page.locator("section", { has: page.locator("#net-strip") }).innerText();
    for (const [, name] of fs.readFileSync("/proc/net/dev", "utf8").matchAll(/^\s*([^\s:]+):/gm)) {
      assert.ok(network.includes(name) || / and \d+ more/.test(network), `interface ${name} is left out silently`);
    }
    assert.match(await shown(page, "net-in"), /^[\d.]+\s*[kMG]?B\/s$/);

    assert.ok(Number(await shown(page, "connections")) >= 1, "this page is a connection");
    // This page alone gets four readings a second.
    const sent = await page.waitForFunction(() => parseFloat(document.getElementById("msg-out").textContent) >= 2);
    assert.ok(sent);

    const before = await inked(page, "msg-strip");
    await page.waitForFunction(() => Number(document.getElementById("machine").dataset.readings) >= 16);
    assert.ok((await inked(page, "msg-strip")) > before, "the trace grows");
    await finish(page);
  });
}

test("the line for the terminal works as it stands, and what it publishes appears", async () => {
  const page = await openDemo(browser);
  const command = await shown(page, "curl");
  assert.ok(command.startsWith(`curl ${API}/api/publish `), command);
  // Where curl is missing its line is posted as curl would: as a form, though it is none.
  const hasCurl = await run("curl", ["--version"]).then(() => true, () => false);
  if (hasCurl) {
    const { stdout } = await run("sh", ["-c", command.replace("curl", "curl -sS")], { timeout: DEADLINE_MS });
    assert.equal(JSON.parse(stdout).error, undefined, stdout);
  } else {
    const [, url, body] = command.match(/^curl (\S+) -d '(.*)'$/);
    const headers = { "Content-Type": "application/x-www-form-urlencoded" };
    assert.equal((await fetch(url, { method: "POST", headers, body })).status, 200);
  }
  const row = said(page, "hello");
  await row.waitFor();
  assert.match(await row.innerText(), /curl\s+HTTP API/);

  await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
  await page.click("#copy");
  await page.locator("#copy", { hasText: "Copied" }).waitFor();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), command);
  await finish(page);
});

test("what one page writes reaches every page of the channel and none of another", async () => {
  const [writer, reader] = [await openDemo(browser), await openDemo(browser)];
  const other = await openClient(`other-${process.pid}`);
  const words = unique("low water at noon");
  await writer.fill("#name", "heron");
  await writer.fill("#text", words);
  await writer.press("#text", "Enter");
  for (const page of [writer, reader]) await said(page, words).waitFor();
  assert.match(await said(writer, words).innerText(), /heron\s+you/);
  assert.doesNotMatch(await said(reader, words).innerText(), /you|HTTP API/);
  assert.equal(await writer.inputValue("#text"), "", "what was sent is gone from the field");
  await writer.waitForFunction(() => Number(document.getElementById("here").textContent) >= 2);

  // Anything that had gone astray would have arrived before this.
  await publish(`other-${process.pid}`, { mark: 1 });
  await other.locator("p").first().waitFor();
  assert.deepEqual(await other.locator("p").allInnerTexts(), ['{"mark":1}']);
  await publish("demo:chat", { name: "curl", text: unique("fence") });
  await said(writer, "fence").first().waitFor();
  assert.equal(await said(writer, "mark").count(), 0);
  for (const page of [writer, reader, other]) await finish(page);
});

test("a page that the server disconnects says why, comes back by itself and goes on", async () => {
  const page = await openDemo(browser);
  const client = await shown(page, "client");
  assert.match(client, /^[0-9a-f-]{36}$/);
  page.phases.length = 0;
  await call("disconnect", { user: "", client, disconnect: { code: 4000, reason: "tide turns" } });
  await until(() => order(page).at(-1) === "live" && order(page).includes("connecting"));
  assert.deepEqual(order(page).slice(order(page).indexOf("waiting")), ["waiting", "connecting", "live"]);
  assert.notEqual(await shown(page, "client"), client);
  const waiting = page.phases.find(([phase]) => phase === "waiting");
  assert.match(waiting[1], /^Retry in \d+ s$/);
  assert.match(waiting[2], /4000 tide turns/);
  await readings(page, 2);
  const words = unique("back again");
  await publish("demo:chat", { name: "curl", text: words });
  await said(page, words).waitFor();
  await finish(page);
});

test("a page that the server sends away for good does not come back until it is asked to", async () => {
  const page = await openDemo(browser, NARROW);
  const client = await shown(page, "client");
  page.phases.length = 0;
  await call("disconnect", { user: "", client });
  await page.waitForSelector('body[data-phase="ended"]');
  await fits(page);
  assert.match(await shown(page, "about"), /3503 force disconnect/);
  await page.click("#retry");
  await until(() => order(page).at(-1) === "live");
  assert.deepEqual(order(page).slice(order(page).indexOf("ended")), ["ended", "connecting", "live"], "no attempt of its own");
  await readings(page, 1);
  await finish(page);
});

test("while the network is gone the page counts down, keeps what was typed, and recovers", async () => {
  const cable = await line();
  const page = await openDemo(browser, NARROW, `${cable.url}/`);
  const words = unique("typed in the tunnel");
  page.phases.length = 0;
  cable.cut();
  await page.waitForSelector('body[data-phase="waiting"]');
  await page.fill("#text", words);
  assert.ok(await page.locator("#send").isDisabled());
  await fits(page);
  // More than one attempt fails, each announced with its own wait.
  await until(() => page.phases.filter(([phase], at) => phase === "waiting" && page.phases[at - 1]?.[0] === "connecting").length >= 2);
  cable.mend();
  await page.waitForSelector('body[data-phase="live"]');
  assert.equal(await page.inputValue("#text"), words);
  await page.click("#send");
  await said(page, words).waitFor();
  await readings(page, 2);
  // The browser reports each failed attempt itself; nothing else may be on the console.
  await finish(page, { allowed: /WebSocket connection to|net::ERR_/ });
  await cable.close();
});

test("whatever JSON arrives is shown as text and breaks nothing", async () => {
  const page = await openDemo(browser);
  const words = unique("<img src=x onerror=alert(1)>");
  await publish("demo:chat", { name: "<b>bold</b>", text: words });
  await said(page, words).waitFor();
  for (const data of [17, "plain", [1, [2, { three: null }]], { text: 5 }, { name: {}, text: {} }, { text: "x".repeat(5_000) }, { name: "\u202e", text: "שלום" }, true]) {
    await publish("demo:chat", data);
  }
  for (const data of [17, "x", [], { processor: [], memory: 5, network: "no", gateway: [], chat: 1 },
    { processor: { busy: 1e300, cores: [null, 5, { core: {}, busy: "x" }, { core: "<i>", busy: -1 }] }, network: { interfaces: [{ name: 5, received: -1, sent: "a" }, null] } },
    { processor: { cores: Array.from({ length: 2_000 }, (_, core) => ({ core, busy: 1 })) }, gateway: { api: "http://x;rm -rf ~" } },
    { memory: { total: 0, available: 0 } }]) {
    await publish("demo:machine", data);
  }
  const last = unique("last");
  await publish("demo:chat", { name: "curl", text: last });
  await said(page, last).waitFor();
  await readings(page, 3);
  assert.equal(await page.locator("#log img, #log b, #log script, #cores i").count(), 0);
  assert.doesNotMatch(await shown(page, "curl"), /rm -rf/);
  assert.equal(await page.locator("#cores .core").count(), fs.readFileSync("/proc/stat", "utf8").match(/^cpu\d+ /gm).length);
  const lengths = await messages(page).evaluateAll((rows) => rows.map((row) => row.textContent.length));
  assert.ok(Math.max(...lengths) < 2_200, "a long text is cut");
  await finish(page);
});

test("the log of the chat is bounded", async () => {
  const page = await openDemo(browser);
  const mark = unique("of many");
  for (let n = 0; n < 230; n++) await publish("demo:chat", { name: "curl", text: `${mark} #${n}` });
  await said(page, "#229").waitFor();
  assert.equal(await messages(page).count(), 200);
  await finish(page);
});

test("the page is served under a policy that allows nothing inline and nothing foreign", async () => {
  const answer = await fetch(`${PUBLIC}/`);
  assert.equal(answer.status, 200);
  const policy = answer.headers.get("content-security-policy") ?? "";
  assert.match(policy, /default-src 'self'/);
  assert.doesNotMatch(policy, /unsafe-inline|unsafe-eval|\*/);
});

// --- Looks ------------------------------------------------------------------------------------------------------------

const SIZES = { desk: [1280, 800, 1], phone: [390, 844, 2], small: [360, 740, 2] };
for (const colorScheme of ["light", "dark"]) {
  test(`${colorScheme}: nothing is wider than the screen, text is readable, screenshots are taken`, async () => {
    for (const [size, [width, height, deviceScaleFactor]] of Object.entries(SIZES)) {
      const page = await openDemo(browser, { viewport: { width, height }, deviceScaleFactor, colorScheme });
      await publish("demo:chat", { name: "curl", text: "hello" });
      await publish("demo:chat", { name: "long", text: "w".repeat(120) });
      await said(page, "wwww").last().waitFor();
      await readings(page, 12);
      await fits(page);
      assert.deepEqual(await faint(page), [], `${size}: text with too little contrast`);
      if (size !== "desk") assert.deepEqual(await tiny(page), [], `${size}: too small to touch`);
      // Strips are drawn when they come into view, so the whole page is brought into view first.
      if (size !== "desk") await page.setViewportSize({ width, height: await page.evaluate(() => document.documentElement.scrollHeight) });
      await readings(page, 2);
      await page.screenshot({ path: path.join(SCREENSHOTS, `demo-${size}-${colorScheme}.png`) });
      await finish(page);
    }
  });
}

/** Texts below the contrast of 4.5 to 1 that WCAG 2 asks for. Runs in the page. */
function faint(page) {
  return page.evaluate(() => {
    const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
    const luminance = ([r, g, b]) => {
      const linear = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
    };
    const ground = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const colour = channels(getComputedStyle(at).backgroundColor);
        if (colour.length < 4 || colour[3] > 0) return colour;
      }
      return [255, 255, 255];
    };
    const texts = [...document.querySelectorAll("body *")].filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return texts
      .filter((element) => element.checkVisibility())
      .map((element) => {
        const [a, b] = [luminance(channels(getComputedStyle(element).color)), luminance(ground(element))].sort((x, y) => y - x);
        return [(a + 0.05) / (b + 0.05), `${element.tagName} "${element.textContent.trim().slice(0, 40)}"`];
      })
      .filter(([ratio]) => ratio < 4.5);
  });
}

/** Controls smaller than the 24 by 24 px that WCAG 2.2 asks for. Runs in the page. */
function tiny(page) {
  return page.evaluate(() =>
    [...document.querySelectorAll("button, input")]
      .filter((control) => control.checkVisibility())
      .map((control) => [control.id, control.getBoundingClientRect()])
      .filter(([, box]) => box.width < 24 || box.height < 24)
      .map(([id]) => id),
  );
}

test("the theme can be switched, is remembered, and redraws the traces", async () => {
  const page = await openDemo(browser, { colorScheme: "light" });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).color);
  const light = await ground();
  await page.click("#theme");
  const dark = await ground();
  assert.notEqual(dark, light);
  assert.equal(await page.getAttribute("#theme", "aria-pressed"), "true");
  await readings(page, 2);
  assert.ok((await inked(page, "cpu-strip")) > 0, "the pen has the new colour");
  await page.reload();
  assert.equal(await ground(), dark);
  await page.click("#theme");
  assert.equal(await ground(), light);
  await page.emulateMedia({ colorScheme: "dark" });
  assert.equal(await ground(), dark, "choosing what the system prefers means following it");
  await finish(page);
});

test("everything can be reached and told apart without a mouse", async () => {
  const page = await openDemo(browser);
  const unnamed = await page.evaluate(() => {
    const named = (control) => control.getAttribute("aria-label") || control.labels?.length || control.textContent.trim();
    return [...document.querySelectorAll("button, input, canvas[role=img]")].filter((control) => !named(control)).map(({ id }) => id);
  });
  assert.deepEqual(unnamed, []);
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "text", "the first stop skips to the chat");
  const words = unique("by keyboard");
  await page.keyboard.type(words);
  await page.keyboard.press("Enter");
  await said(page, words).waitFor();
  await finish(page);
});

// --- docs/client.html -------------------------------------------------------------------------------------------------

/** The file with the address and the channel changed, as a reader would. */
function clientHtml(origin, channel) {
  const text = fs.readFileSync(CLIENT_HTML, "utf8");
  const address = text.replace("ws://127.0.0.1:8000/", `${origin.replace("http", "ws")}/`);
  const changed = address.replace("channels=mine", `channels=${channel}`);
  assert.ok(address !== text && changed !== address, "the address and the channel are where they were");
  return changed;
}

/** The ten-line client as a page of the gateway's own origin, which needs no setting. */
async function openClient(channel) {
  const site = await serve((origin) => clientHtml(origin, channel), { gateway: true });
  const page = await open(browser, site.url);
  page.on("close", () => site.close());
  await page.locator("h1", { hasText: `Subscribed to ${channel}` }).waitFor();
  return page;
}

test("docs/client.html has ten lines and receives what is published to its channel", async () => {
  assert.equal(fs.readFileSync(CLIENT_HTML, "utf8").trimEnd().split("\n").length, 10);
  const channel = `mine-${process.pid}`;
  const page = await openClient(channel);
  await publish(channel, { text: "for me <b>alone</b>" });
  await page.locator("p").waitFor();
  assert.deepEqual(await page.locator("p").allInnerTexts(), ['{"text":"for me <b>alone</b>"}']);
  await finish(page);
});

test("docs/client.html on a foreign origin is refused as long as no setting allows it", async () => {
  const site = await serve(() => clientHtml(PUBLIC, `foreign-${process.pid}`));
  const page = await open(browser, site.url);
  await page.locator("h1", { hasText: "Closed: 1006" }).waitFor();
  assert.equal(await page.locator("h1").count(), 1, "it was never subscribed");
  await finish(page, { allowed: /WebSocket connection to .* failed|403/ });
  await site.close();
});
