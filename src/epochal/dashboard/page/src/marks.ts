/** What is drawn over the lines: what people and callbacks did, the best value, values that are no numbers. */

import type uPlot from "uplot";
import { placer, type AxisName, type Timeline } from "./axis.js";
import { ink, markColour } from "./palette.js";
import type { Happening } from "./types.js";

export interface Dot {
  x: number;
  y: number;
  colour: string;
}

function clipped(plot: uPlot, draw: (context: CanvasRenderingContext2D, ratio: number) => void): void {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  draw(ctx, devicePixelRatio);
  ctx.restore();
}

export function drawHappenings(plot: uPlot, events: Happening[], axis: AxisName, timeline: Timeline): void {
  clipped(plot, (context, ratio) => {
    const { top, height, left, width } = plot.bbox;
    const where = placer(axis, timeline);
    const last = new Map<string, number>();
    for (const event of events) {
      const x = Math.round(plot.valToPos(where(event.step, event.time), "x", true));
      if (x < left || x > left + width || last.get(event.kind) === x) continue;
      last.set(event.kind, x);
      context.strokeStyle = context.fillStyle = markColour(event.kind);
      context.lineWidth = ratio;
      if (event.kind === "save") {
        context.fillRect(x - ratio, top + height - 6 * ratio, 2 * ratio, 6 * ratio); // often: only a notch
        continue;
      }
      context.setLineDash([4 * ratio, 3 * ratio]);
      context.beginPath();
      context.moveTo(x, top + 6 * ratio);
      context.lineTo(x, top + height);
      context.stroke();
      context.setLineDash([]);
      context.beginPath();
      context.moveTo(x - 4 * ratio, top);
      context.lineTo(x + 4 * ratio, top);
      context.lineTo(x, top + 7 * ratio);
      context.fill();
    }
  });
}

export function drawDots(plot: uPlot, dots: Dot[]): void {
  const { ctx: context, bbox } = plot;
  const ratio = devicePixelRatio;
  context.save();
  context.setLineDash([]);
  for (const dot of dots) {
    const x = plot.valToPos(dot.x, "x", true);
    const y = plot.valToPos(dot.y, "y", true);
    if (x < bbox.left || x > bbox.left + bbox.width || y < bbox.top || y > bbox.top + bbox.height) continue;
    context.beginPath();
    context.arc(x, y, 4 * ratio, 0, 2 * Math.PI);
    context.fillStyle = ink().paper;
    context.strokeStyle = dot.colour;
    context.lineWidth = 2 * ratio;
    context.fill();
    context.stroke();
  }
  context.restore();
}

/** A triangle on the ground where a value was not a number, or infinite. */
export function drawMissing(plot: uPlot, places: number[]): void {
  clipped(plot, (context, ratio) => {
    const ground = plot.bbox.top + plot.bbox.height;
    context.fillStyle = markColour("failure");
    for (const value of places.slice(0, 500)) {
      const x = plot.valToPos(value, "x", true);
      context.beginPath();
      context.moveTo(x - 4 * ratio, ground);
      context.lineTo(x + 4 * ratio, ground);
      context.lineTo(x, ground - 7 * ratio);
      context.fill();
    }
  });
}
