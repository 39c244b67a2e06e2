/** A small line chart in SVG: a few series of numbers over time, drawn anew at each change. */

const NAMESPACE = "http://www.w3.org/2000/svg";
const PADDING = { left: 44, right: 12, top: 10, bottom: 22 };

function shape(tag, attributes, text) {
  const made = document.createElementNS(NAMESPACE, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

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

export class LineChart {
  /**
   * `series`: how many lines. `low`, `high`: what the axis shows at least. The chart is as wide as
   * its points, from `least` up to `limit` of them; then the oldest go.
   */
  constructor(container, { series = 1, low, high, least = 20, limit = 90, label = "Chart" } = {}) {
    this.container = container;
    this.series = series;
    this.low = low;
    this.high = high;
    this.least = least;
    this.limit = limit;
    this.points = [];
    this.svg = shape("svg", { role: "img", "aria-label": label });
    container.replaceChildren(this.svg);
    new ResizeObserver(() => this.draw()).observe(container);
  }

  /** Replace everything. A point is `{time, values}`. */
  reset(points) {
    this.points = points.slice(-this.limit);
    this.draw();
  }

  push(point) {
    this.points = [...this.points, point].slice(-this.limit);
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.container;
    if (!width || !height) return;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const [low, high] = this.#range();
    const inner = {
      width: width - PADDING.left - PADDING.right,
      height: height - PADDING.top - PADDING.bottom,
    };
    const places = Math.max(this.least, this.points.length);
    const x = (index) => {
      const place = places - this.points.length + index;
      return PADDING.left + (inner.width * place) / (places - 1);
    };
    const y = (value) => PADDING.top + inner.height * (1 - (value - low) / (high - low));
    const bottom = PADDING.top + inner.height;
    this.svg.replaceChildren(
      ...this.#grid(low, high, width, height, y),
      ...this.#times(x, bottom),
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

  #grid(low, high, width, height, y) {
    const places = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
    return ticksOf(low, high, Math.max(2, height / 48)).flatMap((tick) => [
      shape("line", { class: "grid", x1: PADDING.left, x2: width - PADDING.right, y1: y(tick), y2: y(tick) }),
      shape("text", { class: "axis", x: PADDING.left - 8, y: y(tick) + 4, "text-anchor": "end" }, places.format(tick)),
    ]);
  }

  #times(x, bottom) {
    const first = this.points.at(0);
    const last = this.points.at(-1);
    if (!last) return [];
    const ago = Math.round((Date.parse(last.time) - Date.parse(first.time)) / 1000);
    const end = shape("text", { class: "axis", x: x(this.points.length - 1), y: bottom + 17, "text-anchor": "end" }, "now");
    if (x(0) > x(this.points.length - 1) - 80) return [end];
    const start = shape("text", { class: "axis", x: x(0), y: bottom + 17 }, `${ago} s ago`);
    return [start, end];
  }

  #lines(x, y, bottom) {
    const made = [];
    for (let line = 0; line < this.series; line++) {
      const places = this.points
        .map((point, index) => [x(index), y(point.values[line])])
        .filter(([, height]) => Number.isFinite(height));
      if (!places.length) continue;
      const path = "M" + places.map(([a, b]) => `${a.toFixed(1)} ${b.toFixed(1)}`).join("L");
      const [cx, cy] = places.at(-1);
      const area = `${path}L${cx.toFixed(1)} ${bottom}L${places[0][0].toFixed(1)} ${bottom}Z`;
      if (this.series === 1) made.push(shape("path", { class: `area series-${line}`, d: area }));
      made.push(
        shape("path", { class: `line series-${line}`, d: path }),
        shape("circle", { class: `dot series-${line}`, cx, cy, r: 3.5 }),
      );
    }
    return made;
  }
}
