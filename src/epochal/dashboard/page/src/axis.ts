/** What a chart's x axis says: optimizer steps, time since the run began, or epochs with their fractions. */

import { place, type Columns } from "./columns.js";
import { number } from "./format.js";
import type { EpochSpan } from "./types.js";

export type AxisName = "step" | "time" | "epoch";

/** What is needed of a run to place its points. */
export interface Timeline {
  started: number;
  epochs: EpochSpan[];
}

export function along(points: Columns, axis: AxisName, timeline: Timeline): number[] {
  if (axis === "step") return points.step;
  if (axis === "time") return rising(points.time.map((time) => time - timeline.started));
  const first = timeline.epochs.map((span) => span.first_step);
  return rising(points.step.map((step) => epochOf(step, timeline.epochs, first)));
}

/** What tells where on the axis a step lies. */
export function placer(axis: AxisName, timeline: Timeline): (step: number, time: number) => number {
  if (axis === "step") return (step) => step;
  if (axis === "time") return (_, time) => time - timeline.started;
  const first = timeline.epochs.map((span) => span.first_step);
  return (step) => epochOf(step, timeline.epochs, first);
}

/** 3.5 is the middle of the fourth epoch; a step behind the last known epoch goes on at its pace. */
function epochOf(step: number, epochs: EpochSpan[], first: number[]): number {
  const span = epochs[Math.max(0, place(first, step - 0.5))];
  if (!span) return 0;
  const length = Math.max(1, span.last_step - span.first_step);
  return span.epoch + (step - span.first_step) / length;
}

/** Clocks are set and epochs repeated: a chart's x never goes back. */
function rising(values: number[]): number[] {
  let last = -Infinity;
  return values.map((value) => (last = Math.max(last, value)));
}

function clock(seconds: number): string {
  const sign = seconds < 0 ? "-" : "";
  const all = Math.abs(seconds);
  if (all < 60) return `${sign}${number(all, 3)} s`;
  const two = (part: number): string => String(Math.floor(part)).padStart(2, "0");
  if (all < 3600) return `${sign}${Math.floor(all / 60)}:${two(all % 60)}`;
  return `${sign}${Math.floor(all / 3600)}:${two((all / 60) % 60)} h`;
}

export function tick(value: number, axis: AxisName): string {
  if (axis === "time") return clock(value);
  if (axis === "epoch") return number(value, 4);
  if (Math.abs(value) >= 1e6) return `${number(value / 1e6, 4)} M`;
  if (Math.abs(value) >= 1e4) return `${number(value / 1e3, 4)} k`;
  return number(value);
}

export function spoken(value: number, axis: AxisName): string {
  return axis === "time" ? clock(value) : `${axis} ${number(axis === "step" ? Math.round(value) : value, 6)}`;
}

/** Distances between ticks that read well. */
export function distances(axis: AxisName): number[] {
  const tens = [1, 2, 5].flatMap((one) => Array.from({ length: 13 }, (_, power) => one * 10 ** power)).sort((a, b) => a - b);
  if (axis === "step") return tens;
  if (axis === "epoch") return [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, ...tens];
  return [0.01, 0.1, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000];
}
