// The page: what arrives on `demo:machine` is drawn, what arrives on `demo:chat` is listed.
//
// In --dev anybody may publish any JSON to any channel, so nothing here trusts its shape: a figure that is not a number
// is shown as missing, lists are cut, and text only ever becomes text.

import { Client } from "./client.js";
import { Strip } from "./strip.js";

const MACHINE = "demo:machine";
const CHAT = "demo:chat";
const CORES_MAX = 256;
const INTERFACES_MAX = 64;
const IDLE_NAMED_MAX = 6;
const MESSAGES_MAX = 200;
const TEXT_MAX = 2_000;
const STALE_MS = 3_000; // without a reading while connected
const API_URL = "http://127.0.0.1:9000"; // until the gateway has told its own

const $ = (id) => document.getElementById(id);
const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// --- Figures ----------------------------------------------------------------------------------------------------------

const number = (value) => (typeof value === "number" && Number.isFinite(value) && value >= 0 ? value : NaN);
const list = (value, max) => (Array.isArray(value) ? value.slice(0, max).filter((item) => item && typeof item === "object") : []);
const record = (value) => (value && typeof value === "object" ? value : {});
const label = (value, max) => (typeof value === "string" || typeof value === "number" ? String(value).slice(0, max) : "");

/** Three significant digits and a unit: [“12.4”, “kB/s”]. */
function scaled(value, units, step) {
  if (Number.isNaN(value)) return ["–", ""];
  let n = value;
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) (n /= step), unit++;
  const digits = unit === 0 ? 0 : n < 9.995 ? 2 : n < 99.95 ? 1 : 0;
  return [n.toFixed(digits), units[unit]];
}
const rate = (value) => scaled(value, ["B/s", "kB/s", "MB/s", "GB/s", "TB/s"], 1000);
const bytes = (value) => scaled(value, ["B", "KiB", "MiB", "GiB", "TiB", "PiB"], 1024);
const perSecond = (value) => scaled(value, ["/s", "k/s", "M/s", "G/s"], 1000);
const percent = (share) => (Number.isNaN(share) ? ["–", ""] : [(share * 100).toFixed(0), "%"]);
const count = (value) => (Number.isNaN(value) ? "–" : value.toLocaleString("en"));
const joined = ([figure, unit]) => (unit ? `${figure} ${unit}` : figure);
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;

function uptime(seconds) {
  if (Number.isNaN(seconds)) return "";
  const [days, hours, minutes] = [seconds / 86_400, (seconds / 3600) % 24, (seconds / 60) % 60].map(Math.floor);
  if (days) return `up ${days} d ${hours} h`;
  if (hours) return `up ${hours} h ${minutes} min`;
  return minutes ? `up ${minutes} min` : `up ${Math.floor(seconds)} s`;
}

// Text nodes are only touched when they change: most figures of most ticks do not.
function write(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
function writeReading(target, [figure, unit]) {
  const made = target.querySelector(".unit") ?? target.appendChild(element("span", "unit"));
  const node = target.firstChild === made ? target.insertBefore(document.createTextNode(""), made) : target.firstChild;
  if (node.data !== figure) node.data = figure;
  write(made, unit);
}

// --- The machine ------------------------------------------------------------------------------------------------------

const asRate = (value) => joined(rate(value));
const strips = {
  cpu: new Strip($("cpu-strip"), { ceiling: 1, format: () => "100 %" }),
  memory: new Strip($("memory-strip"), { ceiling: 1, format: () => "100 %" }),
  network: new Strip($("net-strip"), { tide: true, floor: 1_000, format: asRate }),
  messages: new Strip($("msg-strip"), { tide: true, floor: 10, format: (value) => joined(perSecond(value)) }),
};
const cores = new Map(); // number -> { row, figure, strip }
const busyInterfaces = new Set(); // names of those that had traffic since the page was opened
let readings = 0;
let staleTimer = 0;

function machine(data) {
  const at = performance.now();
  const { processor, memory, network, gateway, chat } = record(data);
  drawProcessor(at, record(processor));
  drawMemory(at, record(memory));
  drawNetwork(at, record(network));
  drawGateway(at, record(gateway));
  write($("here"), count(number(record(chat).here)));
  $("machine").dataset.readings = String(++readings);
  clearTimeout(staleTimer);
  staleTimer = setTimeout(showState, STALE_MS);
  if (readings === 1 || stale) showState();
}

/** The items that can be shown, and how many there are in all. */
function listed(items, leftOut, max) {
  const shown = list(items, max);
  return [shown, shown.length + (Array.isArray(items) ? Math.max(0, items.length - max) : 0) + (number(leftOut) || 0)];
}

function drawProcessor(at, { busy, cores: all, left_out: leftOut }) {
  const [shares, total] = listed(all, leftOut, CORES_MAX);
  strips.cpu.push(at, Math.min(1, number(busy)));
  writeReading($("cpu"), percent(strips.cpu.mean()));
  write($("cpu-note"), shares.length ? `mean of ${plural(total, "core")}` : "not available");
  const seen = new Set();
  for (const { core, busy: share } of shares) {
    const name = label(core, 6);
    seen.add(name);
    const shown = cores.get(name) ?? addCore(name);
    shown.strip.push(at, Math.min(1, number(share)));
    write(shown.figure, joined(percent(shown.strip.mean())));
  }
  for (const [name, shown] of cores) if (!seen.has(name)) removeCore(name, shown);
  $("load").dataset.cores = cores.size > 12 ? "many" : cores.size > 4 ? "some" : "few";
  const hidden = total - shares.length;
  $("cores-more").hidden = hidden === 0;
  write($("cores-more"), `${plural(hidden, "more core is", "more cores are")} not drawn.`);
}

function addCore(name) {
  const row = element("li", "core");
  const line = element("p");
  const figure = element("span");
  const canvas = element("canvas");
  canvas.setAttribute("aria-hidden", "true"); // the figure beside it says the same
  const title = element("span");
  title.append(element("span", "word", "core "), name);
  line.append(title, figure);
  row.append(line, canvas);
  $("cores").append(row);
  const shown = { row, figure, strip: new Strip(canvas, { ceiling: 1 }) };
  cores.set(name, shown);
  return shown;
}

function removeCore(name, { row, strip }) {
  strip.dispose();
  row.remove();
  cores.delete(name);
}

function drawMemory(at, { total, available, swap_total: swapTotal, swap_free: swapFree }) {
  const all = number(total);
  const used = number(all - number(available));
  const share = Math.min(1, used / all);
  strips.memory.push(at, share);
  writeReading($("memory"), bytes(used));
  write($("memory-note"), Number.isNaN(share) ? "not available" : `${joined(percent(share))} of ${joined(bytes(all))}`);
  $("memory-level").style.transform = `scaleX(${share || 0})`;
  const swap = number(swapTotal);
  const swapped = number(swap - number(swapFree));
  write($("swap-note"), swap > 0 ? `Swap: ${joined(bytes(swapped))} of ${joined(bytes(swap))}` : swap === 0 ? "No swap." : "");
}

function drawNetwork(at, { interfaces: all, left_out: leftOut }) {
  const [interfaces, total] = listed(all, leftOut, INTERFACES_MAX);
  const sum = (key) => interfaces.reduce((total, one) => total + (number(one[key]) || 0), 0);
  const [received, sent] = interfaces.length ? [sum("received"), sum("sent")] : [NaN, NaN];
  strips.network.push(at, received, sent);
  writeReading($("net-in"), rate(strips.network.mean(0)));
  writeReading($("net-out"), rate(strips.network.mean(1)));
  showInterfaces(interfaces.map((one) => ({ ...one, name: label(one.name, 32) })), total - interfaces.length);
}

// One that has been idle all the time gets no row, but it is named: a host full of containers has dozens.
function showInterfaces(interfaces, hidden) {
  if (busyInterfaces.size > 4 * INTERFACES_MAX) busyInterfaces.clear();
  for (const { name, received, sent } of interfaces) if (received > 0 || sent > 0) busyInterfaces.add(name);
  const [busy, idle] = [true, false].map((wanted) => interfaces.filter(({ name }) => busyInterfaces.has(name) === wanted));
  const body = $("interfaces");
  while (body.rows.length > busy.length) body.lastElementChild.remove();
  busy.forEach(({ name, received, sent }, at) => {
    const { cells } = body.rows[at] ?? addInterface(body);
    write(cells[0], name);
    write(cells[1], asRate(number(received)));
    write(cells[2], asRate(number(sent)));
  });
  $("traffic").hidden = busy.length === 0;
  write($("net-note"), interfaces.length ? networkNote(interfaces, idle, hidden) : "not available");
}

function networkNote(interfaces, idle, hidden) {
  const loopback = interfaces.some(({ name }) => name === "lo") ? ", loopback included" : "";
  const names = idle.slice(0, IDLE_NAMED_MAX).map(({ name }) => name).join(", ");
  const unnamed = idle.length > IDLE_NAMED_MAX ? ` and ${idle.length - IDLE_NAMED_MAX} more` : "";
  return [
    `Trace: sum of ${plural(interfaces.length, "interface")}${loopback}.`,
    idle.length ? ` Idle: ${names}${unnamed}.` : "",
    hidden ? ` Not read: ${plural(hidden, "further interface")}.` : "",
  ].join("");
}

function addInterface(body) {
  const row = body.insertRow();
  const name = element("th");
  name.scope = "row";
  row.append(name);
  row.insertCell();
  row.insertCell();
  return row;
}

function drawGateway(at, { version, uptime_s: up, connections, subscriptions, channels, received_per_s: received, sent_per_s: sent, api }) {
  strips.messages.push(at, number(received), number(sent));
  writeReading($("msg-in"), perSecond(strips.messages.mean(0)));
  writeReading($("msg-out"), perSecond(strips.messages.mean(1)));
  write($("connections"), count(number(connections)));
  write($("subscriptions"), count(number(subscriptions)));
  write($("channels"), count(number(channels)));
  write($("gateway-note"), [label(version, 24), uptime(number(up))].filter(Boolean).join(", "));
  showCurl(api);
}

// --- State ------------------------------------------------------------------------------------------------------------

const ABOUT = $("about").textContent;
let state = { phase: "connecting" };
let stale = false;
let countdown = 0;

function why({ code, reason }) {
  if (code === 0 || code === undefined) return reason || "connection lost";
  if (code === 1006) return "the connection broke (1006)";
  return `${code} ${reason}`.trim();
}

function stateTexts() {
  const { phase } = state;
  if (phase === "connecting") return ["Connecting", ABOUT];
  if (phase === "ended") return ["Disconnected", `The server ended this connection for good: ${why(state)}.`];
  if (phase === "waiting") {
    const seconds = Math.max(0, Math.ceil((state.until - performance.now()) / 1000));
    return [`Retry in ${seconds} s`, `Not connected: ${why(state)}. Readings have stopped; what you type is kept.`];
  }
  return stale ? ["No readings", `Connected, but ${MACHINE} is silent.`] : ["Live", ABOUT];
}

function showState() {
  stale = state.phase === "live" && readings > 0 && !strips.cpu.isFresh(STALE_MS);
  const [short, long] = stateTexts();
  document.body.dataset.phase = state.phase;
  write($("state-text"), short);
  write($("about"), long);
  $("retry").hidden = state.phase !== "waiting" && state.phase !== "ended";
  $("send").disabled = state.phase !== "live";
  clearTimeout(countdown);
  if (state.phase === "waiting") {
    // Wake when the shown second changes, not every so often.
    countdown = setTimeout(showState, ((state.until - performance.now()) % 1000) + 20);
  }
}

function entered(next) {
  const phaseChanged = next.phase !== state.phase;
  state = next;
  showState();
  write($("client"), next.phase === "live" ? next.client : "–");
  if (next.phase !== "live") write($("here"), "–");
  // Screen readers hear each change once; the countdown is for the eyes.
  if (phaseChanged) $("announce").textContent = next.phase === "waiting" ? `Connection lost, reconnecting: ${why(next)}` : $("state-text").textContent;
}

// --- Chat -------------------------------------------------------------------------------------------------------------

function said({ data, info }) {
  const { name, text } = record(data);
  const fromClient = info && typeof info === "object";
  const mine = fromClient && state.phase === "live" && info.client === state.client;
  const row = element("div", fromClient ? "said" : "said api");
  const by = element("p", "by");
  const now = new Date();
  const time = element("time", "", now.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" }));
  time.dateTime = now.toISOString();
  by.append(element("span", "who", label(name, 24) || "somebody"), element("span", "via", mine ? "you" : fromClient ? "" : "HTTP API"), time);
  const words = typeof text === "string" ? element("p", "", text.slice(0, TEXT_MAX)) : element("p");
  if (typeof text !== "string") words.append(element("code", "", String(JSON.stringify(data)).slice(0, TEXT_MAX)));
  words.dir = "auto";
  row.append(by, words);

  const log = $("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 24;
  $("empty").hidden = true;
  log.append(row);
  const rows = log.getElementsByClassName("said");
  while (rows.length > MESSAGES_MAX) rows[0].remove();
  if (atEnd || mine) log.scrollTop = log.scrollHeight;
}

$("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  const name = $("name").value.trim();
  if (!text || !name) return;
  write($("problem"), "");
  try {
    await client.publish(CHAT, { name, text });
    if ($("text").value.trim() === text) $("text").value = "";
  } catch (error) {
    write($("problem"), `Not sent: ${error.message}.`);
  }
});

function showCurl(api) {
  // This line is made to be pasted into a shell: an address is taken over only when it can be nothing else.
  const url = typeof api === "string" && /^https?:\/\/[a-z0-9.:[\]-]{1,80}$/i.test(api) ? api : API_URL;
  write($("curl"), `curl ${url}/api/publish -d '{"channel":"${CHAT}","data":{"name":"curl","text":"hello"}}'`);
}

$("copy").addEventListener("click", async () => {
  let done = "Copied";
  try {
    await navigator.clipboard.writeText($("curl").textContent);
  } catch {
    getSelection().selectAllChildren($("curl"));
    done = "Selected";
  }
  $("copy").textContent = done;
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
});

// --- Keeping what the reader chose ------------------------------------------------------------------------------------

const kept = {
  read: (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null;
    }
  },
  write: (key, value) => {
    try {
      if (value === null) localStorage.removeItem(key);
      else localStorage.setItem(key, value);
    } catch {
      // Storage is refused in some private windows; then a choice lasts as long as the page.
    }
  },
};

const systemDark = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (document.documentElement.dataset.theme ?? (systemDark.matches ? "dark" : "light")) === "dark";

function themeChanged() {
  $("theme").setAttribute("aria-pressed", String(isDark()));
  Strip.recolour([...Object.values(strips), ...[...cores.values()].map(({ strip }) => strip)]);
}

$("theme").addEventListener("click", () => {
  const chosen = isDark() ? "light" : "dark";
  // Choosing what the system prefers means following the system again.
  if ((chosen === "dark") === systemDark.matches) {
    delete document.documentElement.dataset.theme;
    kept.write("tidegate-theme", null);
  } else {
    document.documentElement.dataset.theme = chosen;
    kept.write("tidegate-theme", chosen);
  }
  themeChanged();
});
systemDark.addEventListener("change", themeChanged);
matchMedia("(prefers-contrast: more)").addEventListener("change", themeChanged);

const BIRDS = ["curlew", "dunlin", "knot", "plover", "sanderling", "tern", "turnstone", "whimbrel"];
const pick = (max) => Math.floor(Math.random() * max);
$("name").value = kept.read("tidegate-name") ?? `${BIRDS[pick(BIRDS.length)]}-${10 + pick(90)}`;
$("name").addEventListener("change", () => kept.write("tidegate-name", $("name").value.trim() || null));

// --- Start ------------------------------------------------------------------------------------------------------------

const url = new URL("/connection/websocket", location.href);
url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
const client = new Client(url, [MACHINE, CHAT], {
  state: entered,
  publication(channel, publication) {
    // Readings come from the gateway itself; one that carries a sender's info was written by some page.
    if (channel === MACHINE && !publication.info) machine(publication.data);
    else if (channel === CHAT) said(publication);
  },
  subscription(channel, error) {
    const text = error ? `Not subscribed to ${channel}: ${error.message}.` : "";
    if (channel === CHAT) write($("problem"), text);
    else if (error) write($("cpu-note"), text);
  },
});

$("retry").addEventListener("click", () => client.connect());
addEventListener("online", () => state.phase === "waiting" && client.connect());
document.addEventListener("visibilitychange", () => !document.hidden && state.phase === "waiting" && client.connect());
showCurl(null);
themeChanged();
client.connect();
