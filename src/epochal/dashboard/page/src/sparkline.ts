/** A curve as small as a word. */

import { svg } from "./dom.js";

const WIDTH = 120;
const HEIGHT = 28;

export function sparkline(name: string, values: (number | null)[]): SVGSVGElement {
  const finite = values.filter((value): value is number => value !== null);
  const low = Math.min(...finite);
  const high = Math.max(...finite);
  const place = (value: number, at: number): string => {
    const x = 2 + (at / Math.max(1, values.length - 1)) * (WIDTH - 6);
    const y = high === low ? HEIGHT / 2 : 3 + (1 - (value - low) / (high - low)) * (HEIGHT - 6);
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  };
  let path = "";
  let pen = "M";
  values.forEach((value, at) => {
    path += value === null ? "" : `${pen}${place(value, at)}`;
    pen = value === null ? "M" : "L";
  });
  const last = values.findLastIndex((value) => value !== null);
  const [x, y] = last < 0 ? ["0", "0"] : place(values[last] ?? 0, last).split(" ");
  return svg("svg", { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `Course of ${name}` },
    svg("path", { d: path }), last < 0 ? null : svg("circle", { cx: x, cy: y, r: 2 }));
}
