/** Charts as pictures, curves as tables. */

import { api } from "./api.js";
import { h } from "./dom.js";
import { ink } from "./palette.js";
import { download, toast } from "./toast.js";

function fileName(title: string, ending: string): string {
  return `${title.replace(/[^\w.-]+/g, "-").replace(/^[-.]+|-+$/g, "") || "chart"}.${ending}`;
}

/** Draw a chart with its title and legend into a picture and save that. */
export function savePng(title: string, canvas: HTMLCanvasElement | null, legend: { label: string; colour: string }[]): void {
  if (!canvas) return toast("There is nothing to save yet.");
  const ratio = devicePixelRatio;
  const head = 34 * ratio;
  const foot = legend.length > 1 ? 26 * ratio : 6 * ratio;
  const picture = h("canvas", { width: canvas.width + 16 * ratio, height: canvas.height + head + foot });
  const context = picture.getContext("2d");
  if (!context) return;
  const colours = ink();
  context.fillStyle = colours.paper;
  context.fillRect(0, 0, picture.width, picture.height);
  context.fillStyle = colours.text;
  context.font = `600 ${14 * ratio}px system-ui, sans-serif`;
  context.fillText(title, 14 * ratio, 22 * ratio);
  context.drawImage(canvas, 4 * ratio, head);
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  let x = 14 * ratio;
  for (const { label, colour } of legend.length > 1 ? legend : []) {
    context.fillStyle = colour;
    context.fillRect(x, head + canvas.height + 9 * ratio, 14 * ratio, 3 * ratio);
    context.fillStyle = colours.muted;
    context.fillText(label, x + 20 * ratio, head + canvas.height + 15 * ratio);
    x += context.measureText(label).width + 40 * ratio;
  }
  picture.toBlob((blob) => blob && download(fileName(title, "png"), blob), "image/png");
}

/** Save curves at full resolution, one file a run. */
export function saveCsv(curves: { id: string; curve: string }[]): void {
  const byRun = new Map<string, string[]>();
  for (const { id, curve } of curves) byRun.set(id, [...(byRun.get(id) ?? []), curve]);
  for (const [id, names] of byRun) {
    h("a", { href: api.csv(id, [...new Set(names)]), download: fileName(names.join("-").slice(0, 80), "csv") }).click();
  }
}
