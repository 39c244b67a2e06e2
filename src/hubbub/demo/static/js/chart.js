/** A small line chart in SVG: a few series of numbers over time, drawn anew at each change. */

const NAMESPACE = "http://www.w3.org/2000/svg";
const PADDING = { left: 44, right: 12, top: 10, bottom: 22 };
const LABEL_WIDTH = 110;
const STEPS_S = [1, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600];

function shape(tag, attributes, text) {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const clockTime = (ms) =>
  new Date(ms).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** Round numbers that divide a range into about `count` parts. */
export function ticksOf(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step / 1e6; tick += step)
    ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

/** Round times of the day, in milliseconds, of which at most `count` are between two. */
export function timesOf(start, end, count) {
  const rough = (end - start) / 1000 / Math.max(count, 1);
  const step = 1000 * (STEPS_S.find((each) => each >= rough) ?? STEPS_S.at(-1));
  const times = [];
  for (let time = Math.ceil(start / step) * step; time <= end; time += step) times.push(time);
  return times;
}

export class LineChart {
  /**
   * `series`: how many lines. `low`, `high`: what the axis shows at least. `everyS`: how many
   * seconds lie between two points usually; where it are more than twice as many, nothing is known
   * of the time between, and the line is interrupted. The chart shows from `leastS` up to `limitS`
   * seconds, and forgets what is older than that.
   */
  constructor(container, { series = 1, low, high, everyS = 1, label = "Chart", ...spans } = {}) {
    this.container = container;
    this.series = series;
    this.low = low;
    this.high = high;
    this.gapMs = everyS * 2500;
    this.leastMs = (spans.leastS ?? everyS * 20) * 1000;
    this.limitMs = (spans.limitS ?? everyS * 90) * 1000;
    this.points = [];
    this.svg = shape("svg", { role: "img", "aria-label": label });
    container.replaceChildren(this.svg);
    new ResizeObserver(() => this.draw()).observe(container);
  }

  /** Take what the server remembers. What is here already and older than that stays. */
  merge(points) {
    const known = points.map(timed);
    const first = known.at(0)?.at ?? Infinity;
    this.#keep([...this.points.filter((point) => point.at < first), ...known]);
  }

  /** Add a point, `{time, values}`. The time is ISO 8601. */
  push(point) {
    this.#keep([...this.points, timed(point)]);
  }

  #keep(points) {
    const oldest = (points.at(-1)?.at ?? 0) - this.limitMs;
    this.points = points.filter((point) => point.at >= oldest);
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.container;
    if (!width || !height) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const [low, high] = this.#range();
    const [start, end] = this.#window();
    const inner = {
      width: width - PADDING.left - PADDING.right,
      height: height - PADDING.top - PADDING.bottom,
    };
    const x = (at) => PADDING.left + (inner.width * (at - start)) / (end - start);
    const y = (value) => PADDING.top + inner.height * (1 - (value - low) / (high - low));
    const bottom = PADDING.top + inner.height;
    this.svg.replaceChildren(
      ...this.#grid(low, high, width, height, y),
      ...this.#times(start, end, inner.width, x, bottom),
      ...this.#lines(x, y, bottom),
    );
  }

  #range() {
    const values = this.points.flatMap((point) => point.values).filter(Number.isFinite);
    const low = Math.min(this.low ?? Infinity, ...values);
    const high = Math.max(this.high ?? -Infinity, ...values);
    if (!Number.isFinite(low) || !Number.isFinite(high)) return [0, 1];
    const margin = (high - low) * 0.08 || 1;
    return [this.low === undefined || low < this.low ? low - margin : low, high + margin];
  }

  /** From when to when: the last point is at the end. */
  #window() {
    const end = this.points.at(-1)?.at ?? 0;
    const span = end - (this.points.at(0)?.at ?? 0);
    return [end - Math.max(span, this.leastMs), end];
  }

  #grid(low, high, width, height, y) {
    const places = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
    return ticksOf(low, high, Math.max(2, height / 48)).flatMap((tick) => [
      shape("line", { class: "grid", x1: PADDING.left, x2: width - PADDING.right, y1: y(tick), y2: y(tick) }),
      shape("text", { class: "axis", x: PADDING.left - 8, y: y(tick) + 4, "text-anchor": "end" }, places.format(tick)),
    ]);
  }

  #times(start, end, width, x, bottom) {
    if (!this.points.length) return [];
    const edge = ((end - start) / width) * (LABEL_WIDTH / 3);
    return timesOf(start + edge, end - edge, width / LABEL_WIDTH).map((time) =>
      shape("text", { class: "axis time", x: x(time), y: bottom + 17, "text-anchor": "middle" }, clockTime(time)),
    );
  }

  #lines(x, y, bottom) {
    const made = [];
    for (let line = 0; line < this.series; line++) {
      const runs = this.#runs(line).map((run) => run.map(([at, value]) => [x(at), y(value)]));
      if (!runs.length) continue;
      // A run of one point is a line of no length: its round cap is a dot.
      const paths = runs.map((run) => "M" + (run[1] ? run : [run[0], run[0]]).map(place).join("L"));
      const areas = runs.map((run, index) => `${paths[index]}L${place([run.at(-1)[0], bottom])}L${place([run[0][0], bottom])}Z`);
      const [cx, cy] = runs.at(-1).at(-1);
      if (this.series === 1) made.push(shape("path", { class: `area series-${line}`, d: areas.join("") }));
      made.push(
        shape("path", { class: `line series-${line}`, d: paths.join("") }),
        shape("circle", { class: `dot series-${line}`, cx, cy, r: 3.5 }),
      );
    }
    return made;
  }

  /** The points of a line, parted where time is missing: lists of [time, value]. */
  #runs(line) {
    const runs = [];
    let before = -Infinity;
    for (const { at, values } of this.points) {
      if (!Number.isFinite(values[line])) continue;
      if (at - before > this.gapMs) runs.push([]);
      runs.at(-1).push([at, values[line]]);
      before = at;
    }
    return runs;
  }
}

const timed = ({ time, values }) => ({ at: Date.parse(time), values });
const place = ([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`;
