/** A mask as lengths of runs, row by row, off first, painted over its picture. */

import { h } from "./dom.js";
import type { Mask } from "./types.js";

export function drawMask(mask: Mask, colour: string, kind: string): HTMLCanvasElement {
  const [height, width] = mask.size;
  const canvas = h("canvas", { width, height, class: kind });
  const context = canvas.getContext("2d");
  if (!context || width * height === 0 || width * height > 1 << 24) return canvas;
  const image = context.createImageData(width, height);
  const part = (at: number): number => parseInt(colour.slice(at, at + 2), 16);
  const pixel = new Uint32Array(image.data.buffer);
  const painted = (110 << 24) | (part(5) << 16) | (part(3) << 8) | part(1); // little-endian: A B G R
  let at = 0;
  mask.counts.forEach((count, index) => {
    if (index % 2 === 1) pixel.fill(painted, at, at + count);
    at += count;
  });
  context.putImageData(image, 0, 0);
  return canvas;
}
