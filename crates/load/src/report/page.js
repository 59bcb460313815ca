"use strict";
const { report, curves, command, machine } = JSON.parse(document.getElementById("data").textContent);

// Elements are made with their text as text: a server writes part of it.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  Object.entries(attributes || {}).forEach(([name, value]) => element.setAttribute(name, value));
  element.append(...children);
  return element;
}
function draw(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  Object.entries(attributes).forEach(([name, value]) => element.setAttribute(name, value));
  if (text !== undefined) element.textContent = text;
  return element;
}

// Numbers as people read them.
const whole = (n) => Math.round(n).toLocaleString("en-US");
function short(n) {
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (n >= size) return trim(n / size) + unit;
  }
  return trim(n);
}
const trim = (n) => (n === 0 ? "0" : n >= 100 ? n.toFixed(0) : String(Number(n.toPrecision(3))));
const time = (us) => (us >= 1e6 ? `${trim(us / 1e6)} s` : us >= 1e3 ? `${trim(us / 1e3)} ms` : `${trim(us)} µs`);
const mib = (n) => `${trim(n)} MiB`;
const bytes = (n) => (n >= 1024 ** 3 ? `${trim(n / 1024 ** 3)} GiB` : mib(n / 1024 ** 2));
const clock = (s) => (s >= 120 ? `${trim(s / 60)} min` : `${trim(s)} s`);

// Steps of an axis: 1, 2 or 5 times a power of ten; on a logarithmic one, whole powers.
function linearTicks(max, count) {
  const rough = max / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  return Array.from({ length: Math.ceil(max / step - 1e-9) + 1 }, (_, index) => index * step);
}
function powerTicks(min, max) {
  const [from, to] = [Math.floor(Math.log10(min)), Math.ceil(Math.log10(max))];
  return Array.from({ length: Math.max(to - from, 1) + 1 }, (_, index) => 10 ** (from + index));
}

const times = curves.samples.map((sample) => sample.at);
const slotEnds = [...curves.latency, ...curves.opening].map((slot) => slot.at + curves.period_seconds);
const begin = curves.parts.length ? curves.parts[0].from : 0;
const end = Math.max(begin + 0.1, ...times, ...slotEnds);

// One plot: series of [seconds, value] with a shared axis; `log` where values span decades.
function plot({ title, series, format, log }) {
  const lines = series.filter((line) => line.points.length);
  const values = lines.flatMap((line) => line.points.map((point) => point[1]));
  if (!values.some((value) => value > 0)) return;
  const svg = draw("svg", { role: "img", "aria-label": title });
  const keys = lines.map((line) => {
    const mark = make("i", { style: `background: var(${line.color})` });
    return make("span", { class: "key" }, ...(lines.length > 1 ? [mark, line.name] : []));
  });
  const readout = make("div", { class: "readout" });
  const figure = make("figure", {}, make("figcaption", {}, make("b", {}, title), ...keys), readout, svg);
  document.getElementById("charts").append(figure);
  const shown = { svg, readout, lines, format, log, max: Math.max(...values), min: Math.min(...values.filter((v) => v > 0)) };
  new ResizeObserver(() => render(shown)).observe(svg);
  svg.addEventListener("pointermove", (event) => point(shown, event.offsetX));
  svg.addEventListener("pointerleave", () => point(shown, null));
}

function render(shown) {
  const { svg, lines, format, log } = shown;
  const [width, height] = [svg.clientWidth, svg.clientHeight];
  const ticks = log ? powerTicks(shown.min, shown.max) : linearTicks(shown.max, 4);
  const left = 12 + 6.2 * Math.max(...ticks.map((tick) => format(tick).length));
  const [right, top, bottom] = [width - 8, 16, height - 20];
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const x = (at) => left + ((at - begin) / (end - begin)) * (right - left);
  const level = log ? (v) => Math.log(Math.max(v, low) / low) / Math.log(high / low) : (v) => v / high;
  const y = (value) => bottom - level(value) * (bottom - top);
  Object.assign(shown, { x, y, left, right, top, bottom });
  svg.replaceChildren();
  ticks.forEach((tick) => {
    svg.append(draw("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }));
    svg.append(draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, format(tick)));
  });
  const seconds = linearTicks(end - begin, Math.max(2, Math.floor((right - left) / 90)));
  seconds.filter((at) => at <= end - begin).forEach((at) => {
    const label = { x: x(begin + at), y: height - 4, "text-anchor": at ? "middle" : "start" };
    // The last one would stick out of the plot.
    if (x(begin + at) < right - 12) svg.append(draw("text", label, clock(at)));
  });
  parts(shown);
  svg.append(draw("line", { class: "axis", x1: left, x2: right, y1: bottom, y2: bottom }));
  lines.forEach((line) => svg.append(draw("path", { d: path(line, x, y), stroke: `var(${line.color})` })));
  shown.cross = draw("line", { class: "cross", y1: top, y2: bottom, visibility: "hidden" });
  svg.append(shown.cross);
}

// Where the parts of the run begin. Where there is no room for all labels, the longest parts have theirs.
function parts({ svg, x, top, bottom, right }) {
  const ends = [...curves.parts.slice(1).map((part) => part.from), end];
  const labels = curves.parts.map((part, index) => {
    const from = x(part.from);
    svg.append(draw("line", { class: "part", x1: from, x2: from, y1: top - 4, y2: bottom }));
    return { text: part.label, lasts: ends[index] - part.from, from, to: from + 8 + 6 * part.label.length };
  });
  const placed = [];
  labels.sort((a, b) => b.lasts - a.lasts).forEach((label) => {
    if (label.to > right + 8 || placed.some((other) => label.from < other.to && other.from < label.to)) return;
    placed.push(label);
    svg.append(draw("text", { x: label.from + 3, y: top - 6 }, label.text));
  });
}

// A line, broken where nothing was recorded for several periods.
function path(line, x, y) {
  let previous = null;
  const steps = line.points.map(([at, value]) => {
    const joined = previous !== null && at - previous <= line.gap;
    previous = at;
    const [px, py] = [x(at).toFixed(1), y(value).toFixed(1)];
    return joined ? `L${px} ${py}` : `M${px} ${py}h.01`;
  });
  return steps.join("");
}

// Reads the values under the pointer.
function point(shown, offset) {
  const { cross, readout, lines, format, left, right } = shown;
  if (!cross) return;
  if (offset === null || offset < left || offset > right) {
    cross.setAttribute("visibility", "hidden");
    readout.textContent = "";
    return;
  }
  const at = begin + ((offset - left) / (right - left)) * (end - begin);
  const nearest = (line) => line.points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
  const read = lines.map((line) => [line, nearest(line)]).filter(([line, [when]]) => Math.abs(when - at) <= line.gap);
  cross.setAttribute("visibility", "visible");
  cross.setAttribute("x1", offset);
  cross.setAttribute("x2", offset);
  const values = read.map(([line, [, value]]) => `${lines.length > 1 ? line.name + " " : ""}${format(value)}`);
  readout.textContent = [`at ${clock(at - begin)}`, ...values].join(" · ");
}

const GAP_PERIODS = 5;
function percentiles(title, slots) {
  const middle = (slot) => slot.at + curves.period_seconds / 2;
  const gap = GAP_PERIODS * Math.max(curves.period_seconds, (end - begin) / 200);
  const line = (name, key, color) => ({ name, color, gap, points: slots.map((slot) => [middle(slot), slot[key]]) });
  const series = [line("p50", "p50", "--s1"), line("p90", "p90", "--s2"), line("p99", "p99", "--s3"), line("max", "max", "--s4")];
  plot({ title, series, format: time, log: true });
}
function sampled(name, color, value) {
  const points = curves.samples.map((sample) => [sample.at, value(sample)]).filter((point) => Number.isFinite(point[1]));
  return { name, color, gap: Infinity, points };
}
// How fast something grows. CPU is counted in hundredths of a second, so samples that are very close say nothing.
const RATE_SECONDS_MIN = 0.2;
function grown(name, color, value) {
  const { points } = sampled(name, color, value);
  const rates = [];
  let before = points[0];
  points.slice(1).forEach((now) => {
    if (now[0] - before[0] < RATE_SECONDS_MIN) return;
    rates.push([now[0], Math.max(0, (now[1] - before[1]) / (now[0] - before[0]))]);
    before = now;
  });
  return { name, color, gap: Infinity, points: rates };
}

const MIB = 1024 ** 2;
percentiles("Latency", curves.latency);
percentiles("Time until a client is ready", curves.opening);
plot({ title: "Received per second", series: [grown("received", "--a", (s) => s.received)], format: short });
plot({ title: "Clients ready", series: [sampled("ready", "--a", (s) => s.ready)], format: short });
plot({ title: "Pings per second", series: [grown("pings", "--a", (s) => s.pings)], format: short });
plot({
  title: "Resident memory",
  series: [
    sampled("server", "--a", (s) => s.server && s.server.rss_bytes / MIB),
    sampled("generator", "--b", (s) => s.generator && s.generator.rss_bytes / MIB),
  ].map((line) => ({ ...line, points: line.points.filter((p) => p[1] > 0) })),
  format: mib,
});
plot({
  title: "CPU, in cores",
  series: [
    ...(report.server ? [grown("server", "--a", (s) => s.server && s.server.cpu_seconds)] : []),
    grown("generator", "--b", (s) => s.generator && s.generator.cpu_seconds),
  ],
  format: trim,
});

// The tables.
function facts(id, rows) {
  const list = make("dl", { class: "facts" });
  rows.filter((row) => row && row[1] !== undefined && row[1] !== null && row[1] !== "").forEach(([name, value, bad]) => {
    list.append(make("div", bad ? { class: "bad" } : {}, make("dt", {}, name), make("dd", {}, String(value))));
  });
  document.getElementById(id).append(list);
}
const fault = (name, count) => [name, whole(count), count > 0];
const pings = (p) => p && `${whole(p.total)} (${p.min} to ${p.max} per client, median ${p.median})`;
const publishing = report.publishing || {};
facts("totals", [
  ["clients", whole(report.connections)],
  ["measured", clock(report.seconds)],
  ["sent", whole(report.sent)],
  ["received", whole(report.received)],
  fault("lost", report.lost),
  fault("duplicated", report.duplicated),
  fault("out of order", report.out_of_order),
  fault("misdelivered", report.misdelivered),
  fault("foreign", report.foreign),
  fault("failed to open", report.failed),
  fault("disconnected", report.disconnected),
  fault("closed uncleanly", report.unclean),
  report.publishing && ["publications accepted", whole(publishing.accepted)],
  report.publishing && fault("publications refused or unknown", publishing.refused + publishing.unknown),
  ["pings", pings(report.pings)],
  ["pings in the measured part", pings(report.pings_held)],
  report.server && ["server memory", `${bytes(report.server.rss_bytes)}, ${whole(report.server.rss_bytes_per_connection)} B per client`],
  report.server && ["server CPU in the measured part", `${trim(report.server.cpu_seconds)} s`],
  ["generator memory", `${bytes(report.generator_rss_bytes)}, ${whole(report.generator_rss_bytes_per_connection)} B per client`],
  ["generator loops", `${report.loops}, the busiest worked ${trim(report.generator_busy * 100)} %`],
]);
// Distributions, one a row.
const columns = ["p50", "p90", "p99", "p999", "max"];
const row = (tag, name, cells) => make("tr", {}, make("th", {}, name), ...cells.map((cell) => make(tag, {}, cell)));
const distributions = [["latency", report.latency_us], ["until ready", report.opening_us], ["publish answer", publishing.latency_us]];
const table = make("table", {}, row("th", "", ["p50", "p90", "p99", "p99.9", "max"]));
distributions.filter((distribution) => distribution[1]).forEach(([name, percentiles]) => {
  table.append(row("td", name, columns.map((column) => time(percentiles[column]))));
});
document.getElementById("times").append(table);

const reasons = Object.entries(report.reasons);
document.getElementById("reasons-section").hidden = reasons.length === 0;
facts("reasons", reasons.map(([reason, count]) => [whole(count), reason]));
facts("machine", [
  ["kernel", machine.kernel],
  ["processor", machine.processor],
  ["cores", machine.cores],
  ["memory", machine.memory_bytes && bytes(machine.memory_bytes)],
  ["congestion control", machine.congestion_control],
  ["open files", machine.open_files && whole(machine.open_files)],
  ["server", machine.server_command],
  ["cores the server may use", machine.server_cores],
]);

document.title = `tidegate-load ${report.scenario}`;
document.getElementById("title").textContent = `${report.scenario}: ${whole(report.connections)} clients`;
document.getElementById("command").textContent = command;
const clean = make("strong", { class: machine.clean ? "good" : "bad" }, machine.clean ? "Nothing went wrong." : "Something went wrong.");
document.getElementById("verdict").append(clean, ` tidegate-load ${machine.version}`);
