/** One drawing: axes, zoom and the cursor are uPlot's, the lines and their bands are painted here. */

import uPlot from "uplot";
import { distances, tick, type AxisName } from "./axis.js";
import { isBanded, middle, nearest, place, smooth, type Columns, type Value } from "./columns.js";
import { h } from "./dom.js";
import { number, ticksOf } from "./format.js";
import { band, trace, type Ground, type Part } from "./paint.js";
import { faint, ink } from "./palette.js";

export interface Line {
  x: number[];
  points: Columns;
  colour: string;
  quiet: boolean; // a line for comparison only
  soft?: boolean; // a noisy one, under its means
}

export interface Form {
  axis: AxisName;
  log: boolean;
  smoothing: number;
  zoom: [number, number] | null;
  height: number;
}

export interface Hooks {
  over: (plot: uPlot) => void;
  cursor: (x: number | null) => void;
  zoom: (range: [number, number] | null) => void;
}

/** A line with all that is drawn of it. */
interface Drawn {
  line: Line;
  values: Value[];
  even: Value[] | null; // smoothed
  banded: boolean;
  part: Part;
}

const SYNC = "charts";
const DENSE = 500; // points from which on a line is one pixel wide: browsers draw those many times faster
const FEW = 40; // points up to which each has a dot
const MARGIN = 16; // right of the last value, for half a tick's text

function drawn(line: Line, form: Form, window: [number, number], pixels: number): Drawn {
  const positive = (value: Value): Value => (value !== null && value <= 0 ? null : value);
  const all = middle(line.points);
  const values = form.log ? all.map(positive) : all;
  const last = line.x.length - 1;
  const from = Math.max(0, place(line.x, window[0]));
  const to = Math.min(last, place(line.x, window[1]) + 1);
  return {
    line, values, even: form.smoothing > 0 ? smooth(values, form.smoothing) : null,
    banded: isBanded(line.points), part: { from, to, crowded: to - from > pixels },
  };
}

/** The least and the greatest value that is seen. */
function extent(lines: Drawn[], log: boolean): [number, number] | [null, null] {
  let [least, most] = [Infinity, -Infinity];
  for (const { line: { points }, part } of lines) {
    for (let at = part.from; at <= part.to; at += 1) {
      const [low, high] = [points.low[at] ?? null, points.high[at] ?? null];
      if (low !== null && low < least && !(log && low <= 0)) least = low;
      if (high !== null && high > most && !(log && high <= 0)) most = high;
      if (high !== null && log && high > 0 && high < least) least = high;
    }
  }
  return least <= most ? [least, most] : [null, null];
}

/** Some space above and below; a line that never moves lies in the middle. */
function range(log: boolean): uPlot.Range.Function {
  return (_plot, low, high) => {
    if (low === null || high === null) return log ? [0.1, 10] : [0, 1];
    if (log) return low === high ? [low / 2, high * 2] : uPlot.rangeLog(low, high, 10, false);
    if (low === high) return [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    return [low - (high - low) * 0.06, high + (high - low) * 0.08];
  };
}

/** The texts under the x axis; one that would be cut off at the edge is left out. */
function ticks(plot: uPlot, splits: number[], axis: AxisName): string[] {
  return splits.map((one) => {
    const text = tick(one, axis);
    const room = plot.bbox.width / devicePixelRatio + MARGIN - plot.valToPos(one, "x");
    return room < text.length * 3.3 ? "" : text;
  });
}

function options(form: Form, width: number, paint: (plot: uPlot) => void, hooks: Hooks): uPlot.Options {
  const colours = ink();
  const axis: uPlot.Axis = {
    stroke: colours.muted, font: "11px system-ui, sans-serif",
    grid: { stroke: colours.grid, width: 1 }, ticks: { show: false },
  };
  return {
    width, height: form.height, padding: [8, MARGIN, 0, 0], legend: { show: false },
    scales: {
      x: { time: false, range: (_plot, low, high) => [low, high] },
      y: { distr: form.log ? 3 : 1, range: range(form.log) },
    },
    series: [{}, { stroke: "transparent", width: 0, points: { show: false }, paths: () => null }], // ranges the scales
    axes: [
      { ...axis, size: 26, gap: 4, space: 64, incrs: distances(form.axis), values: (plot, splits) => ticks(plot, splits, form.axis) },
      { ...axis, size: 56, gap: 6, space: 34, values: (_plot, splits) => (form.log ? splits.map((one) => (one === null ? "" : number(one, 3))) : ticksOf(splits)) },
    ],
    cursor: {
      y: false, drag: { x: true, y: false, setScale: false },
      points: { show: false },
      sync: { key: SYNC, scales: ["x", null], setSeries: false, filters: { pub: (type: string) => type === "mousemove" || type === "mouseleave" } },
      bind: { dblclick: () => () => (hooks.zoom(null), null) },
    } as uPlot.Cursor,
    hooks: {
      drawAxes: [paint],
      draw: [hooks.over],
      setCursor: [(plot) => {
        const left = plot.cursor.left ?? -1;
        hooks.cursor(left < 0 ? null : plot.posToVal(left, "x"));
      }],
      setSelect: [(plot) => {
        const { left, width: wide } = plot.select;
        if (wide < 5) return;
        hooks.zoom([plot.posToVal(left, "x"), plot.posToVal(left + wide, "x")]);
        plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
      }],
    },
  };
}

export class Plot {
  private plot: uPlot | null = null;
  private made = "";
  private width = 0;
  private lines: Drawn[] = [];
  private readonly dots: HTMLElement[] = [];

  constructor(
    private readonly place: HTMLElement,
    private readonly hooks: Hooks,
  ) {}

  get canvas(): HTMLCanvasElement | null {
    return this.plot?.ctx.canvas ?? null;
  }

  /** Its place has another width from now on: told, since asking for it would have the whole page laid out. */
  resize(width: number): void {
    this.width = Math.round(width);
  }

  draw(lines: Line[], form: Form): void {
    this.width ||= this.place.clientWidth;
    const { width } = this;
    if (width === 0) return;
    const first = Math.min(...lines.map((line) => line.x[0] ?? Infinity));
    const last = Math.max(...lines.map((line) => line.x.at(-1) ?? -Infinity));
    const [begin, end] = form.zoom ?? (first < last ? [first, last] : [first - 1, first + 1]);
    this.lines = lines.map((line) => drawn(line, form, [begin, end], width * devicePixelRatio));
    const data: uPlot.AlignedData = [[begin, end], extent(this.lines, form.log)];
    const made = [form.axis, form.log, form.height, devicePixelRatio, ink().paper].join();
    const { plot } = this;
    if (plot && made === this.made) {
      plot.batch(() => { // now, not behind all that is drawn in this frame, so that the time it takes can be seen
        if (plot.width !== width) plot.setSize({ width, height: form.height });
        plot.setData(data);
      });
      return;
    }
    this.close();
    this.made = made;
    const hooks = { ...this.hooks, cursor: (x: number | null): void => this.moved(x) };
    this.plot = new uPlot(options(form, width, (own) => this.paint(own), hooks), data, this.place);
  }

  private paint(plot: uPlot): void {
    const { ctx, bbox } = plot;
    const { x, y } = plot.scales;
    const [left, right] = [x?.min ?? 0, x?.max ?? 1];
    const isLog = y?.distr === 3;
    const height = (value: number): number => (isLog ? Math.log10(value) : value);
    const [low, high] = [height(y?.min ?? 0), height(y?.max ?? 1)];
    const [wide, tall] = [bbox.width / (right - left), bbox.height / (high - low)];
    const ground: Ground = {
      x: (value) => bbox.left + (value - left) * wide,
      y: (value) => bbox.top + (high - height(value)) * tall,
    };
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top - 1, bbox.width + 1, bbox.height + 2);
    ctx.clip();
    this.lines.forEach((one) => paintBand(ctx, ground, one, isLog));
    this.lines.forEach((one) => paintLine(ctx, ground, one));
    ctx.restore();
    this.lines.forEach((one) => paintDots(ctx, ground, one, [left, right]));
  }

  private moved(x: number | null): void {
    this.hooks.cursor(x);
    const { plot } = this;
    if (!plot) return;
    this.lines.forEach(({ line, values, even }, at) => {
      const dot = (this.dots[at] ??= h("i", { class: "dot" }));
      const near = x === null ? -1 : nearest(line.x, x);
      const value = (even ?? values)[near] ?? null;
      dot.hidden = value === null;
      if (value === null) return;
      if (dot.parentNode !== plot.over) plot.over.append(dot);
      dot.style.backgroundColor = line.colour;
      dot.style.translate = `${plot.valToPos(line.x[near] ?? 0, "x")}px ${plot.valToPos(value, "y")}px`;
    });
    for (const dot of this.dots.splice(this.lines.length)) dot.remove();
  }

  /** Put the cursor on a value of x, as the keys do; null takes it away. */
  point(x: number | null): void {
    if (!this.plot) return;
    const left = x === null ? -10 : this.plot.valToPos(x, "x");
    this.plot.setCursor({ left, top: x === null ? -10 : 10 });
  }

  close(): void {
    this.plot?.destroy();
    this.plot = null;
    this.dots.length = 0;
  }
}

function paintBand(ctx: CanvasRenderingContext2D, ground: Ground, { line, part, banded }: Drawn, isLog: boolean): void {
  if (!banded) return;
  const positive = (values: Value[]): Value[] => (isLog ? values.map((value) => (value !== null && value <= 0 ? null : value)) : values);
  ctx.beginPath();
  band(ctx, ground, part, line.x, positive(line.points.low), positive(line.points.high));
  ctx.fillStyle = faint(line.colour, 0.18);
  ctx.fill();
}

function paintLine(ctx: CanvasRenderingContext2D, ground: Ground, { line, part, values, even }: Drawn): void {
  const count = part.to - part.from + 1;
  const hair = 1 / devicePixelRatio;
  const width = count > DENSE ? hair : line.quiet ? 1 : 1.5;
  ctx.lineJoin = count > DENSE ? "bevel" : "round";
  ctx.setLineDash(line.quiet ? [4 * devicePixelRatio, 3 * devicePixelRatio] : []);
  const stroke = (of: Value[], colour: string, wide: number): void => {
    ctx.beginPath();
    trace(ctx, ground, part, line.x, of);
    ctx.strokeStyle = colour;
    ctx.lineWidth = wide * devicePixelRatio;
    ctx.stroke();
  };
  const colour = even ? faint(line.colour, 0.3) : line.soft ? faint(line.colour, 0.6) : line.colour;
  stroke(values, colour, even || line.soft ? Math.min(1, width) : width);
  if (even) stroke(even, line.colour, count > DENSE ? 1 : width + 0.5);
}

/** Few points have a dot each; half of it may lie outside of the chart. */
function paintDots(ctx: CanvasRenderingContext2D, ground: Ground, { line, part, values }: Drawn, [left, right]: [number, number]): void {
  if (part.to - part.from + 1 >= FEW || line.quiet) return;
  ctx.save();
  ctx.beginPath();
  for (let at = part.from; at <= part.to; at += 1) {
    const [here, value] = [line.x[at] ?? 0, values[at]];
    if (value === null || value === undefined || here < left || here > right) continue;
    const [x, y] = [ground.x(here), ground.y(value)];
    ctx.moveTo(x, y);
    ctx.arc(x, y, 2.5 * devicePixelRatio, 0, 2 * Math.PI);
  }
  ctx.fillStyle = line.colour;
  ctx.fill();
  ctx.restore();
}
