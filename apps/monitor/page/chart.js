// Charts of a series by uPlot: what was seen and expected, the score and its threshold, alarms shaded.

import { by, make } from "/look/dom.js";
import { number, tick, time } from "./format.js";

export const drawn = () => typeof window.uPlot === "function";

const MOST_CHANNELS = 6;
const dark = matchMedia("(prefers-color-scheme: dark)");

function colours() {
  const style = getComputedStyle(document.documentElement);
  const get = (name) => style.getPropertyValue(name).trim();
  return {
    ink: get("--soft"), grid: get("--line"), seen: get("--accent"), expected: get("--soft"),
    alarm: `rgb(${get("--against")} / 24%)`, edge: `rgb(${get("--against")} / 90%)`,
    other: `rgb(${get("--for")} / 75%)`,
  };
}

// Shades [start, end] periods; one that is shorter than three pixels is still seen.
function shade(plot, periods, fill) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = fill;
  for (const [start, end] of periods) {
    const left = Math.max(plot.valToPos(start, "x", true), bbox.left);
    const right = Math.min(plot.valToPos(end, "x", true), bbox.left + bbox.width);
    if (right < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.fillRect(left, bbox.top, Math.max(right - left, 3), bbox.height);
  }
  ctx.restore();
}

// Marks along the top edge where another threshold would have raised alarms.
function mark(plot, periods, fill) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.fillStyle = fill;
  for (const [start, end] of periods) {
    const left = plot.valToPos(start, "x", true);
    const right = plot.valToPos(end, "x", true);
    if (right < bbox.left || left > bbox.left + bbox.width) continue;
    ctx.fillRect(left, bbox.top, Math.max(right - left, 4), 5 * devicePixelRatio);
  }
  ctx.restore();
}

const bothEnds = (values) => values.reduce(
  ([low, high], value) => (value === null ? [low, high] : [Math.min(low, value), Math.max(high, value)]),
  [Infinity, -Infinity],
);

// What was seen decides the range; a forecast that leaves it far behind is cut off. Scores begin at 0.
function bounds(data, scores) {
  const [least, most] = bothEnds(data?.[scores ? 1 : 2] ?? []);
  if (least > most) return [0, 1];
  if (scores) return [0, 1.1 * Math.max(most, data[2].at(-1) ?? 0, 1e-6)];
  const room = Math.max(most - least, Math.abs(most) * 1e-3, 1e-9);
  const [low, high] = bothEnds(data[1]);
  return [
    Math.max(Math.min(least, low), least - room / 2) - room * 0.08,
    Math.min(Math.max(most, high), most + room / 2) + room * 0.08,
  ];
}

// One plot with its own headline, which tells the value under the pointer, else the newest.
class Plot {
  constructor(parent, name, series, { height, last, marks }) {
    this.name = name;
    this.labels = series.map(({ label }) => label);
    this.figure = make("figure", "plot");
    this.head = make("figcaption");
    this.head.append(make("b", "", name), (this.told = make("span")));
    this.canvas = make("div", "canvas");
    this.canvas.setAttribute("role", "img");
    this.figure.append(this.head, this.canvas);
    parent.append(this.figure);
    this.periods = [];
    this.marks = [];
    const tone = colours();
    const axis = { stroke: tone.ink, grid: { stroke: tone.grid, width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const options = {
      width: Math.max(this.canvas.clientWidth, 200),
      height: height + (last ? 22 : 0),
      legend: { show: false },
      padding: [8, 22, 0, 0],
      cursor: { sync: { key: "time" }, y: false, drag: { x: false, y: false }, points: { size: 6 } },
      scales: { x: { time: true }, y: { range: () => bounds(this.data, marks) } },
      axes: [
        { ...axis, show: last, size: 24, space: 64, values: (_, ticks, __, ___, step) => ticks.map((at) => tick(at, step)) },
        { ...axis, size: 52, space: 28, values: (_, ticks) => ticks.map(number) },
      ],
      series: [{}, ...series.map((one) => ({ width: 1.5, points: { show: false }, spanGaps: false, ...one }))],
      hooks: {
        drawClear: [(plot) => shade(plot, this.periods, tone.alarm)],
        draw: marks ? [(plot) => mark(plot, this.marks, tone.other)] : [],
        setCursor: [(plot) => this.tell(plot.cursor.idx)],
      },
    };
    this.plot = new window.uPlot(options, [[], ...series.map(() => [])], this.canvas);
    this.watch = new ResizeObserver(() => {
      const width = this.canvas.clientWidth;
      if (width > 0 && width !== this.plot.width) this.plot.setSize({ width, height: options.height });
    });
    this.watch.observe(this.canvas);
  }

  set(data, periods, marks = []) {
    this.periods = periods;
    this.marks = marks;
    this.data = data;
    this.plot.setData(data);
    this.tell(null);
  }

  tell(index) {
    const at = index ?? (this.data?.[0].length ?? 0) - 1;
    if (at < 0 || !this.data) return;
    const parts = this.labels.map((label, place) => `${label} ${number(this.data[place + 1][at])}`);
    this.told.textContent = (index === null ? "" : `${time(this.data[0][at])} · `) + parts.join(" · ");
    if (index === null) this.canvas.setAttribute("aria-label", `Chart of ${this.name}: ${parts.join(", ")}`);
  }

  destroy() {
    this.watch.disconnect();
    this.plot.destroy();
    this.figure.remove();
  }
}

const SEEN = (tone) => ({ label: "seen", stroke: tone.seen });
const EXPECTED = (tone) => ({ label: "expected", stroke: tone.expected, dash: [5, 4], width: 1.2 });

// The charts of the series that is looked at. `data` holds columns as the API gives them.
export class Charts {
  constructor(parent) {
    this.parent = parent;
    this.plots = [];
    this.shown = MOST_CHANNELS;
    dark.addEventListener("change", () => this.redraw());
  }

  open(channels) {
    this.close();
    this.channels = channels;
    const tone = colours();
    const shown = channels.slice(0, this.shown);
    for (const name of shown) {
      this.plots.push(new Plot(this.parent, name, [EXPECTED(tone), SEEN(tone)], { height: shown.length > 2 ? 104 : 150, last: false }));
    }
    const score = [{ label: "score", stroke: tone.seen, fill: null }, { label: "threshold", stroke: tone.edge, dash: [3, 3], width: 1.2 }];
    this.plots.push(new Plot(this.parent, "Score", score, { height: 110, last: true, marks: true }));
  }

  set(data, threshold, periods, marks) {
    this.last = [data, threshold, periods, marks];
    const { times } = data;
    const column = (rows, place) => rows.map((row) => (row === null ? null : row[place]));
    this.plots.slice(0, -1).forEach((plot, place) => {
      plot.set([times, column(data.expected, place), column(data.values, place)], periods);
    });
    this.plots.at(-1)?.set([times, data.scores, times.map(() => threshold)], periods, marks);
  }

  redraw() {
    if (!this.plots.length) return;
    this.open(this.channels);
    if (this.last) this.set(...this.last);
  }

  close() {
    for (const plot of this.plots) plot.destroy();
    this.plots = [];
  }
}

// Expected against seen around an alarm's peak, of the channels that speak loudest.
export function drawWhy(parent, around, channels, period) {
  parent.replaceChildren();
  if (!drawn()) return;
  const tone = colours();
  const loud = channels.filter(({ share }) => share >= 0.1).slice(0, 3);
  const shown = loud.length ? loud : channels.slice(0, 1);
  shown.forEach(({ name, at }, order) => {
    const place = around.channels.indexOf(name);
    const column = (rows) => rows.map((row) => (row === null ? null : row[place]));
    const plot = new Plot(parent, name, [EXPECTED(tone), SEEN(tone)], { height: 120, last: order === shown.length - 1 });
    plot.set([around.times, column(around.expected), column(around.values)], [period]);
    const there = around.times.indexOf(at);
    if (there >= 0) plot.tell(there);
  });
}

export function moreButton(charts) {
  const more = charts.channels.length - charts.shown;
  const button = by("more-channels");
  button.hidden = more <= 0;
  button.textContent = `Show ${more} more channels`;
}
