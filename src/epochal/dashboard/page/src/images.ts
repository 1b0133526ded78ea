/** The pictures a run logged, by name, each through its steps, with the boxes that were true and those predicted. */

import { api } from "./api.js";
import { toggle } from "./chart_tools.js";
import { h, say, svg } from "./dom.js";
import { number, whole } from "./format.js";
import { faint, colour } from "./palette.js";
import { throttled } from "./stream.js";
import type { Box, Medium } from "./types.js";

export class Images {
  readonly element: HTMLElement;
  private readonly grid = h("div", { class: "images" });
  private readonly note = h("p", { class: "empty" }, "Looking for images…");
  private readonly cards = new Map<string, Picture>();
  readonly refresh = throttled(() => this.load(), 1500);

  constructor(private readonly id: string) {
    const boxes = toggle("Predicted boxes", true, (on) => this.grid.classList.toggle("no-boxes", !on));
    const truth = toggle("True boxes", true, (on) => this.grid.classList.toggle("no-truth", !on));
    const least = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0.25, "aria-label": "Least score of a box" });
    const shown = h("output", {}, "0.25");
    least.addEventListener("input", () => {
      say(shown, Number(least.value).toFixed(2));
      this.cards.forEach((card) => card.least(Number(least.value)));
    });
    const tools = h("div", { class: "tools" }, boxes, truth, h("label", { class: "smoothing" }, "Least score", least, shown));
    this.element = h("div", { class: "panel" }, tools, this.grid, this.note);
    this.refresh();
  }

  private async load(): Promise<void> {
    try {
      const byName = new Map<string, Medium[]>();
      for (const one of await api.media(this.id, "image")) byName.set(one.name, [...(byName.get(one.name) ?? []), one]);
      for (const [name, media] of byName) {
        const card = this.cards.get(name) ?? new Picture(this.id, name);
        if (!this.cards.has(name)) this.grid.append(card.element);
        this.cards.set(name, card);
        card.update(media);
      }
      say(this.note, byName.size === 0 ? "This run has logged no images. run.log_image(name, image) does." : "");
    } catch (error) {
      say(this.note, `The images could not be listed: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
}

class Picture {
  readonly element: HTMLElement;
  private readonly img = h("img", { loading: "lazy", decoding: "async" });
  private readonly over = svg("svg", { class: "boxes", "aria-hidden": "true" });
  private readonly step = h("span", { class: "muted" });
  private readonly slider = h("input", { type: "range", min: 0, step: 1 });
  private media: Medium[] = [];
  private score = 0.25;
  private latest = true;

  constructor(private readonly id: string, private readonly name: string) {
    this.slider.setAttribute("aria-label", `Step of ${name}`);
    this.slider.addEventListener("input", () => {
      this.latest = Number(this.slider.value) === this.media.length - 1;
      this.show();
    });
    this.element = h("figure", { class: "picture" }, h("div", { class: "frame" }, this.img, this.over),
      h("figcaption", {}, h("b", { title: name }, name), this.step), this.slider);
  }

  update(media: Medium[]): void {
    if (media.length === this.media.length) return;
    this.media = media;
    this.slider.max = String(media.length - 1);
    if (this.latest) this.slider.value = this.slider.max;
    this.slider.hidden = media.length < 2;
    this.show();
  }

  least(score: number): void {
    this.score = score;
    this.boxes();
  }

  private show(): void {
    const one = this.media[Number(this.slider.value)];
    if (!one) return;
    this.img.src = api.medium(this.id, one.id);
    this.img.alt = `${this.name} at step ${whole(one.step)}${this.spoken(one.about.boxes ?? [])}`;
    say(this.step, `epoch ${one.epoch + 1} · step ${whole(one.step)}`);
    this.slider.setAttribute("aria-valuetext", `step ${one.step}`);
    this.boxes();
  }

  private spoken(boxes: Box[]): string {
    const found = boxes.filter((box) => !box.true).map((box) => `${box.label} ${number(box.score, 2)}`);
    return found.length > 0 ? `; predicted: ${found.slice(0, 12).join(", ")}` : "";
  }

  private boxes(): void {
    const about = this.media[Number(this.slider.value)]?.about;
    const { width, height, boxes } = about ?? {};
    this.over.replaceChildren();
    if (!width || !height || !boxes) return;
    this.over.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const labels = [...new Set(boxes.map((box) => box.label))].sort();
    for (const box of boxes) {
      if (!box.true && (box.score ?? 1) < this.score) continue;
      this.over.append(drawn(box, colour(labels.indexOf(box.label)), height));
    }
  }
}

function drawn(box: Box, stroke: string, height: number): SVGGElement {
  const [x1, y1, x2, y2] = box.box;
  const text = height / 22;
  const rect = svg("rect", { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), stroke, fill: box.true ? "none" : faint(stroke, 0.08), class: box.true ? "true" : "" });
  const label = svg("text", { x: x1 + text * 0.2, y: y1 > text * 1.2 ? y1 - text * 0.25 : y1 + text, "font-size": text, fill: stroke },
    box.true || box.score === null ? box.label : `${box.label} ${box.score.toFixed(2)}`);
  return svg("g", { class: box.true ? "truth" : "predicted" }, rect, box.true ? null : label);
}
