/** A curve's points or ranges as columns; what is not finite is null, which is drawn as a gap. */

import type { CurveData } from "./types.js";

export type Value = number | null;

export interface Columns {
  step: number[];
  time: number[];
  low: Value[];
  high: Value[];
}

export const none = (): Columns => ({ step: [], time: [], low: [], high: [] });

export function columns(data: CurveData): Columns {
  return { step: data.step, time: data.time, low: data.low, high: data.high };
}

export function add(to: Columns, more: Columns): void {
  for (let at = 0; at < more.step.length; at += 1) {
    to.step.push(more.step[at] ?? 0);
    to.time.push(more.time[at] ?? 0);
    to.low.push(more.low[at] ?? null);
    to.high.push(more.high[at] ?? null);
  }
}

export function cut(of: Columns, count: number): void {
  of.step.length = of.time.length = of.low.length = of.high.length = Math.min(count, of.step.length);
}

/** The middle of each range: a point's own value. */
export function middle(of: Columns): Value[] {
  return of.low.map((low, at) => {
    const high = of.high[at] ?? null;
    return low === null || high === null ? null : low === high ? low : (low + high) / 2;
  });
}

/** Whether some are ranges of several points. */
export function isBanded(of: Columns): boolean {
  return of.low.some((low, at) => low !== of.high[at]);
}

/**
 * An exponential moving average that starts without bias: divided by the weight it has had so far, 1 - smoothing^n
 * (Kingma and Ba, Adam, section 3). What is null stays null and counts nothing.
 */
export function smooth(values: Value[], smoothing: number): Value[] {
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    mean = smoothing * mean + (1 - smoothing) * value;
    weight = smoothing * weight + (1 - smoothing);
    return mean / weight;
  });
}

/** The place of the last entry that is at most x, -1 where none is; the list rises. */
export function place(sorted: ArrayLike<number>, x: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if ((sorted[mid] ?? 0) <= x) low = mid + 1;
    else high = mid;
  }
  return low - 1;
}

/** The place of the entry that is nearest to x. */
export function nearest(sorted: ArrayLike<number>, x: number): number {
  const at = place(sorted, x);
  if (at < 0) return 0;
  const here = sorted[at] ?? 0;
  const next = sorted[at + 1];
  return next !== undefined && next - x < x - here ? at + 1 : at;
}
