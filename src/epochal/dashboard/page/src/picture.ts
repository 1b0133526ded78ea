/** A picture with the boxes and masks that were true, and those that were predicted. */

import { api } from "./api.js";
import { h, svg } from "./dom.js";
import { number, whole } from "./format.js";
import { drawMask } from "./mask.js";
import { colour, faint } from "./palette.js";
import { Steps } from "./steps.js";
import type { Box, Medium } from "./types.js";

export class Picture {
  readonly element: HTMLElement;
  private readonly img = h("img", { decoding: "async" });
  private readonly over = svg("svg", { class: "boxes", "aria-hidden": "true" });
  private readonly masks = h("div", { class: "masks", "aria-hidden": "true" });
  private readonly steps: Steps;
  private shown: Medium | null = null;
  private score = 0.25;

  constructor(private readonly id: string, private readonly name: string) {
    this.steps = new Steps(name, (one) => this.show(one));
    this.element = h("figure", { class: "picture" }, h("div", { class: "frame" }, this.img, this.masks, this.over),
      h("figcaption", {}, h("b", { title: name }, name), this.steps.told), this.steps.slider);
  }

  update(media: Medium[]): void {
    this.steps.update(media);
  }

  least(score: number): void {
    this.score = score;
    this.boxes();
  }

  private show(one: Medium): void {
    this.shown = one;
    this.img.src = api.medium(this.id, one.id);
    const found = (one.about.boxes ?? []).filter((box) => !box.true).map((box) => `${box.label} ${number(box.score, 2)}`);
    const spoken = found.length > 0 ? `; predicted: ${found.slice(0, 12).join(", ")}` : "";
    this.img.alt = `${this.name} at step ${whole(one.step)}${spoken}`;
    this.boxes();
  }

  private boxes(): void {
    const { width, height, boxes } = this.shown?.about ?? {};
    this.over.replaceChildren();
    this.masks.replaceChildren();
    if (!width || !height || !boxes) return;
    this.over.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const labels = [...new Set(boxes.map((box) => box.label))].sort();
    for (const box of [...boxes].sort((a, b) => Number(b.true) - Number(a.true))) {
      if (!box.true && (box.score ?? 1) < this.score) continue;
      const stroke = colour(labels.indexOf(box.label));
      this.over.append(drawn(box, stroke, width, height));
      if (box.mask) this.masks.append(drawMask(box.mask, stroke, box.true ? "truth" : "predicted"));
    }
  }
}

function drawn(box: Box, stroke: string, width: number, height: number): SVGGElement {
  const [x1, y1, x2, y2] = box.box;
  const size = Math.max(width, height) / 24;
  const rect = svg("rect", {
    x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), stroke,
    fill: box.true || box.mask ? "none" : faint(stroke, 0.08), class: box.true ? "true" : "",
  });
  if (box.true) return svg("g", { class: "truth" }, rect);
  const text = box.score === null ? box.label : `${box.label} ${box.score.toFixed(2)}`;
  const y = y1 > size * 1.4 ? y1 - size * 0.3 : y1 + size;
  return svg("g", { class: "predicted" }, rect, svg("text", { x: x1 + size * 0.1, y, "font-size": size }, text));
}
