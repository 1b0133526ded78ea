/** One drawing: lines with bands, made by uPlot, and made again only when its form changes. */

import uPlot from "uplot";
import { distances, tick, type AxisName } from "./axis.js";
import { isBanded, middle, smooth, type Columns, type Value } from "./columns.js";
import { number } from "./format.js";
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

const SYNC = "charts";
const DENSE = 500; // points from which on a line is one pixel wide: browsers draw those many times faster

/** The columns that uPlot draws: for each line its values, smoothed ones, low and high. */
export function data(lines: Line[], form: Form): uPlot.AlignedData {
  const tables = lines.map((line) => {
    const positive = (value: Value): Value => (form.log && value !== null && value <= 0 ? null : value);
    const values = middle(line.points).map(positive);
    const even = form.smoothing > 0 ? smooth(values, form.smoothing) : values;
    const banded = isBanded(line.points);
    const low = banded ? line.points.low.map(positive) : values;
    const high = banded ? line.points.high.map(positive) : values;
    return [line.x, values, even, low, high] as uPlot.AlignedData;
  });
  return tables.length === 1 && tables[0] ? tables[0] : uPlot.join(tables, tables.map(() => [0, 1, 1, 1, 1]));
}

function series(line: Line, form: Form): uPlot.Series[] {
  const smoothed = form.smoothing > 0;
  const banded = isBanded(line.points);
  const few = (plot: uPlot, at: number): boolean => {
    const count = (plot.data[at] ?? []).length;
    return count > 0 && count < 40 && !line.quiet;
  };
  const common = { spanGaps: false, points: { show: few, size: 5, fill: line.colour, stroke: line.colour } };
  const width = line.quiet || line.x.length > DENSE ? 1 : 1.5;
  const dash = line.quiet ? [4, 3] : [];
  const hidden = { show: banded, stroke: "transparent", width: 0, points: { show: false } };
  return [
    { ...common, show: true, stroke: faded(line, smoothed), width: smoothed || line.soft ? 1 : width, dash },
    { show: smoothed, stroke: line.colour, width: line.x.length > DENSE ? 1 : width + 0.5, dash, points: { show: false } },
    hidden,
    hidden,
  ];
}

function faded(line: Line, smoothed: boolean): string {
  return smoothed ? faint(line.colour, 0.3) : line.soft ? faint(line.colour, 0.6) : line.colour;
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

function options(lines: Line[], form: Form, width: number, hooks: Hooks): uPlot.Options {
  const colours = ink();
  const axis: uPlot.Axis = {
    stroke: colours.muted, font: "11px system-ui, sans-serif",
    grid: { stroke: colours.grid, width: 1 }, ticks: { show: false },
  };
  const bands = lines.map((line, at) => ({ series: [at * 4 + 4, at * 4 + 3] as uPlot.Band.Bounds, fill: faint(line.colour, 0.18) }));
  return {
    width, height: form.height, padding: [8, 16, 0, 0], legend: { show: false },
    scales: {
      x: { time: false, range: (_plot, low, high) => form.zoom ?? (low === high ? [low - 1, high + 1] : [low, high]) },
      y: { distr: form.log ? 3 : 1, range: range(form.log) },
    },
    series: [{}, ...lines.flatMap((line) => series(line, form))],
    bands: bands.filter((_, at) => lines[at] && isBanded(lines[at].points)),
    axes: [
      { ...axis, size: 26, gap: 4, space: 64, incrs: distances(form.axis), values: (_plot, splits) => splits.map((one) => tick(one, form.axis)) },
      { ...axis, size: 56, gap: 6, space: 34, values: (_plot, splits) => splits.map((one) => (one === null ? "" : number(one, 3))) },
    ],
    cursor: {
      y: false, drag: { x: true, y: false, setScale: false },
      points: { size: 6 },
      sync: { key: SYNC, scales: ["x", null], setSeries: false, filters: { pub: (type: string) => type === "mousemove" || type === "mouseleave" } },
      bind: { dblclick: () => () => (hooks.zoom(null), null) },
    } as uPlot.Cursor,
    hooks: {
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

  constructor(
    private readonly place: HTMLElement,
    private readonly hooks: Hooks,
  ) {}

  get canvas(): HTMLCanvasElement | null {
    return this.plot?.ctx.canvas ?? null;
  }

  draw(lines: Line[], form: Form): void {
    const width = this.place.clientWidth;
    if (width === 0) return;
    const shape = lines.map((line) => `${line.colour}${line.quiet}${isBanded(line.points)}${line.x.length > DENSE}`).join();
    const made = [shape, form.axis, form.log, form.smoothing > 0, form.height, ink().paper, form.zoom].join();
    if (this.plot && made === this.made) {
      if (this.plot.width !== width) this.plot.setSize({ width, height: form.height });
      this.plot.setData(data(lines, form));
      return;
    }
    this.close();
    this.made = made;
    this.plot = new uPlot(options(lines, form, width, this.hooks), data(lines, form), this.place);
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
  }
}
