/** Lines and bands on a canvas: a pixel column is drawn once, however many points fall on it. */

import type { Value } from "./columns.js";

/** Where a value lies on a canvas, in its pixels. */
export interface Ground {
  x: (value: number) => number;
  y: (value: number) => number;
}

/** The part of a line that is seen: the places of its first and last point. */
export interface Part {
  from: number;
  to: number;
  crowded: boolean; // more points than pixel columns
}

/** Add a line to the path. Of the points of one column the first, the least, the greatest and the last are joined. */
export function trace(path: CanvasPath, ground: Ground, part: Part, x: number[], values: Value[]): void {
  let column = NaN;
  let low = 0;
  let high = 0;
  let last = 0;
  let count = 0; // columns since the pen was put down
  const leave = (): void => {
    if (low === high) return;
    path.lineTo(column, low);
    path.lineTo(column, high);
    path.lineTo(column, last);
  };
  const lift = (): void => {
    if (count > 0) leave();
    if (count === 1 && low === high) path.lineTo(column + 1, last); // a point with gaps on both sides
    count = 0;
    column = NaN;
  };
  for (let at = part.from; at <= part.to; at += 1) {
    const value = values[at];
    if (value === null || value === undefined) {
      lift();
      continue;
    }
    const exact = ground.x(x[at] ?? 0);
    const here = part.crowded ? Math.floor(exact) + 0.5 : exact;
    const y = ground.y(value);
    if (here === column) {
      if (y < low) low = y;
      else if (y > high) high = y;
      last = y;
      continue;
    }
    if (count > 0) {
      leave();
      path.lineTo(here, y);
    } else path.moveTo(here, y);
    count += 1;
    column = here;
    low = high = last = y;
  }
  lift();
}

/** Add the area between the lows and the highs to the path. */
export function band(path: CanvasPath, ground: Ground, part: Part, x: number[], low: Value[], high: Value[]): void {
  let columns: [number, number, number][] = [];
  const close = (): void => {
    if (columns.length > 1) {
      columns.forEach(([here, , top], at) => (at === 0 ? path.moveTo(here, top) : path.lineTo(here, top)));
      for (let at = columns.length - 1; at >= 0; at -= 1) path.lineTo(columns[at]?.[0] ?? 0, columns[at]?.[1] ?? 0);
      path.closePath();
    }
    columns = [];
  };
  for (let at = part.from; at <= part.to; at += 1) {
    const [least, most] = [low[at] ?? null, high[at] ?? null];
    if (least === null || most === null) {
      close();
      continue;
    }
    const exact = ground.x(x[at] ?? 0);
    const here = part.crowded ? Math.floor(exact) + 0.5 : exact;
    const [bottom, top] = [ground.y(least), ground.y(most)];
    const last = columns.at(-1);
    if (last && last[0] === here) {
      last[1] = Math.max(last[1], bottom);
      last[2] = Math.min(last[2], top);
    } else columns.push([here, bottom, top]);
  }
  close();
}
