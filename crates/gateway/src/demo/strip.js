// A strip chart: the last minute of one or two figures on ruled paper that moves from right to left.
//
// Nothing is drawn unless a figure, the size or the theme has changed, and nothing that is off the screen.

const WINDOW_MS = 60_000;
const RULE_MS = 10_000;
const GAP_MS = 1_500; // a longer silence lifts the pen: no line is drawn over time that was not measured
const SAMPLES_MAX = 512;
const CALM_MS = 1_000; // between two drawings when the reader prefers reduced motion
const TIP = 5; // room for the pen's tip, CSS pixels

const calm = matchMedia("(prefers-reduced-motion: reduce)");
const dirty = new Set();
let frame = 0;
let inks = null;
let drawnAt = -Infinity;

function draw(now) {
  frame = 0;
  if (calm.matches && now - drawnAt < CALM_MS) {
    schedule();
    return;
  }
  drawnAt = now;
  inks ??= readInks();
  for (const strip of dirty) if (strip.visible) strip.draw();
  dirty.clear();
}

function schedule() {
  if (frame) return;
  const left = calm.matches ? drawnAt + CALM_MS - performance.now() : 0;
  // A timer first, so that reduced motion does not spin on animation frames.
  if (left > 20) frame = setTimeout(() => (frame = requestAnimationFrame(draw)), left);
  else frame = requestAnimationFrame(draw);
}

function readInks() {
  const style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(name).trim();
  return { paper: ink("--paper"), rule: ink("--rule"), ruleStrong: ink("--rule-strong"), label: ink("--ink-2"), pens: [ink("--pen-1"), ink("--pen-2")] };
}

const strips = new WeakMap(); // canvas -> Strip
const resizes = new ResizeObserver((entries) => entries.forEach(({ target }) => strips.get(target)?.redraw()));
const sights = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    const strip = strips.get(target);
    if (!strip) continue;
    strip.visible = isIntersecting;
    if (isIntersecting) strip.redraw();
  }
});

/** The smallest of 1, 2, 5 times a power of ten that is not below `value`. */
export function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5].find((step) => step * power >= value) ?? 10);
}

export class Strip {
  visible = true;
  #canvas;
  #context;
  #ceiling;
  #format;
  #tide;
  #times = new Float64Array(SAMPLES_MAX);
  #values = [new Float64Array(SAMPLES_MAX), new Float64Array(SAMPLES_MAX)];
  #count = 0; // ever pushed; the newest is at (count - 1) % SAMPLES_MAX

  /**
   * @param canvas what to draw on; its size comes from the style sheet
   * @param ceiling the value at the top, or null to fit the highest of the last minute
   * @param floor with a fitted ceiling: the smallest ceiling
   * @param tide two figures, the first drawn upwards from the middle, the second downwards
   * @param format turns the ceiling into its label; without it there is none
   */
  constructor(canvas, { ceiling = null, floor = 1, tide = false, format = null } = {}) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#ceiling = () => ceiling ?? niceCeiling(Math.max(floor, this.#highest()));
    this.#format = format;
    this.#tide = tide;
    strips.set(canvas, this);
    resizes.observe(canvas);
    sights.observe(canvas);
  }

  /** Takes a reading; a figure that is NaN lifts the pen. */
  push(at, first, second = NaN) {
    const slot = this.#count++ % SAMPLES_MAX;
    this.#times[slot] = at;
    this.#values[0][slot] = first;
    this.#values[1][slot] = second;
    this.redraw();
  }

  /** The mean of a pen's last second, or NaN: what a reader can follow where four figures a second flicker. */
  mean(pen = 0) {
    let sum = 0;
    let n = 0;
    this.#each((slot) => {
      const value = this.#values[pen][slot];
      if (this.#newest() - this.#times[slot] >= 990) return false;
      if (!Number.isNaN(value)) (sum += value), n++;
      return true;
    });
    return n ? sum / n : NaN;
  }

  /** Whether the newest reading is younger than `ms`. */
  isFresh(ms) {
    return this.#count > 0 && performance.now() - this.#newest() < ms;
  }

  redraw() {
    dirty.add(this);
    schedule();
  }

  /** Called when the strip is taken off the page. */
  dispose() {
    resizes.unobserve(this.#canvas);
    sights.unobserve(this.#canvas);
    dirty.delete(this);
  }

  #newest() {
    return this.#count ? this.#times[(this.#count - 1) % SAMPLES_MAX] : 0;
  }

  // From the newest to the oldest sample of the window, until `visit` says false.
  #each(visit) {
    const oldest = Math.max(0, this.#count - SAMPLES_MAX);
    for (let n = this.#count - 1; n >= oldest; n--) {
      const slot = n % SAMPLES_MAX;
      if (this.#newest() - this.#times[slot] > WINDOW_MS + GAP_MS || visit(slot) === false) return;
    }
  }

  #highest() {
    let highest = 0;
    this.#each((slot) => {
      for (const pen of this.#values) if (pen[slot] > highest) highest = pen[slot];
    });
    return highest;
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    if (!width || !height) return;
    const scale = devicePixelRatio || 1;
    const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.#canvas.width !== w || this.#canvas.height !== h) Object.assign(this.#canvas, { width: w, height: h });
    const c = this.#context;
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, width, height);
    this.#drawRules(width, height);
    const ceiling = this.#ceiling();
    const base = this.#tide ? height / 2 : height - 1.5;
    const reach = (this.#tide ? height / 2 : height - 1.5) - 4;
    this.#drawPen(0, width, base, -reach / ceiling);
    if (this.#tide) this.#drawPen(1, width, base, reach / ceiling);
    if (this.#format && this.#count) {
      c.fillStyle = inks.label;
      c.font = "500 11px system-ui, sans-serif";
      c.textBaseline = "top";
      // A halo of paper, so that the label can be read on top of a trace.
      c.strokeStyle = inks.paper;
      c.lineWidth = 3;
      c.lineJoin = "round";
      c.strokeText(this.#format(ceiling), 2, 4);
      c.fillText(this.#format(ceiling), 2, 4);
    }
  }

  #drawRules(width, height) {
    const c = this.#context;
    const line = (x0, y0, x1, y1) => (c.moveTo(x0, y0), c.lineTo(x1, y1));
    const perMs = (width - TIP) / WINDOW_MS;
    const phase = calm.matches ? 0 : this.#newest() % RULE_MS;
    c.lineWidth = 1;
    c.strokeStyle = inks.rule;
    c.beginPath();
    for (let ago = phase; ago <= WINDOW_MS; ago += RULE_MS) {
      const x = Math.round(width - TIP - ago * perMs) + 0.5;
      line(x, 0, x, height);
    }
    const rows = height < 60 ? 2 : 4;
    for (let row = 0; row < rows; row++) {
      const y = Math.round((row * (height - 1)) / rows) + 0.5;
      line(0, y, width, y);
    }
    c.stroke();
    c.strokeStyle = inks.ruleStrong;
    c.beginPath();
    const zero = this.#tide ? Math.round(height / 2) + 0.5 : height - 0.5;
    line(0, zero, width, zero);
    c.stroke();
  }

  #drawPen(pen, width, base, perUnit) {
    const c = this.#context;
    const values = this.#values[pen];
    const right = width - TIP;
    const perMs = right / WINDOW_MS;
    const newest = this.#newest();
    const trace = new Path2D();
    const area = new Path2D();
    let from = null; // where the pen was set down; we go from right to left
    let x = 0;
    let before = newest;
    const lift = () => {
      if (from !== null) area.lineTo(x, base), area.lineTo(from, base), area.closePath();
      from = null;
    };
    this.#each((slot) => {
      const value = values[slot];
      if (Number.isNaN(value) || before - this.#times[slot] > GAP_MS) lift();
      before = this.#times[slot];
      if (Number.isNaN(value)) return;
      x = right - (newest - before) * perMs;
      const y = base + value * perUnit;
      if (from === null) {
        from = x;
        trace.moveTo(x, y);
        area.moveTo(x, y);
      } else {
        trace.lineTo(x, y);
        area.lineTo(x, y);
      }
    });
    lift();
    c.save();
    c.fillStyle = c.strokeStyle = inks.pens[pen];
    c.globalAlpha = 0.1;
    c.fill(area);
    c.globalAlpha = 1;
    c.lineWidth = 1.5;
    c.lineJoin = "round";
    c.stroke(trace);
    const last = this.#count ? values[(this.#count - 1) % SAMPLES_MAX] : NaN;
    if (!Number.isNaN(last)) {
      c.beginPath();
      c.arc(right, base + last * perUnit, 2.5, 0, 2 * Math.PI);
      c.fill();
    }
    c.restore();
  }

  /** Reads the colours of the style sheet again, for every strip given. */
  static recolour(all) {
    inks = null;
    for (const strip of all) strip.redraw();
  }
}
