/** Twenty charts of two thousand points, each drawn anew in every frame with one more point: frames a second. */

import { Plot, type Form, type Line } from "../src/epochal/dashboard/page/src/plot.js";

const CHARTS = 20;
const POINTS = 2000;
const FORM: Form = { axis: "step", log: false, smoothing: 0, zoom: null, height: 200 };

function line(seed: number): Line {
  const step = Array.from({ length: POINTS }, (_, at) => at);
  const low = step.map((at) => Math.exp(-at / 700) + 0.1 * Math.sin(at * 0.37 + seed));
  return { x: step, points: { step, time: step, low, high: low.map((value) => value + 0.05) }, colour: "#0072b2", quiet: false };
}

/** Draw for so many seconds; `{ frames, drawing }` a second, and milliseconds of script a frame. */
async function measure(seconds: number): Promise<{ frames: number; drawing: number }> {
  const charts = Array.from({ length: CHARTS }, (_, seed) => {
    const place = document.createElement("div");
    document.body.append(place);
    return { plot: new Plot(place, { over: () => undefined, cursor: () => undefined, zoom: () => undefined }), line: line(seed) };
  });
  let frames = 0;
  let drawing = 0;
  const begin = performance.now();
  while (performance.now() - begin < seconds * 1000) {
    await new Promise(requestAnimationFrame);
    const start = performance.now();
    for (const { plot, line: one } of charts) {
      const next = (one.points.step.at(-1) ?? 0) + 1;
      for (const [column, value] of [[one.points.step, next], [one.points.low, Math.random()], [one.points.high, Math.random() + 1]] as const) {
        column.shift();
        column.push(value);
      }
      plot.draw([one], FORM);
    }
    drawing += performance.now() - start;
    frames += 1;
  }
  return { frames: (frames * 1000) / (performance.now() - begin), drawing: drawing / frames };
}

Object.assign(window, { measure });
