/** What a run logged beside numbers: pictures, distributions, texts; each by its name, through its steps. */

import { api } from "./api.js";
import { toggle } from "./chart_tools.js";
import { h, say } from "./dom.js";
import { Distribution } from "./distribution.js";
import { Picture } from "./picture.js";
import { Sample } from "./sample.js";
import { throttled } from "./throttled.js";
import type { Medium } from "./types.js";

interface Card {
  readonly element: HTMLElement;
  update(media: Medium[]): void;
}

const KINDS = [
  { kind: "image", title: "Images", make: (id: string, name: string): Card => new Picture(id, name) },
  { kind: "histogram", title: "Distributions", make: (id: string, name: string): Card => new Distribution(id, name) },
  { kind: "text", title: "Texts", make: (id: string, name: string): Card => new Sample(id, name) },
];

export class MediaView {
  readonly element: HTMLElement;
  private readonly note = h("p", { class: "empty" }, "Looking for images…");
  private readonly cards = new Map<string, Card>();
  private readonly places = new Map<string, { section: HTMLElement; grid: HTMLElement; count: HTMLElement }>();
  private readonly tools: HTMLElement;
  readonly refresh = throttled(() => this.load(), 1500);

  constructor(private readonly id: string) {
    this.tools = this.boxTools();
    const sections = KINDS.map(({ kind, title }) => {
      const grid = h("div", { class: kind === "text" ? "texts" : "images" });
      const count = h("span", { class: "count" });
      const section = h("details", { class: "group", open: true, hidden: true }, h("summary", {}, h("h2", {}, title), count), kind === "image" ? this.tools : null, grid);
      this.places.set(kind, { section, grid, count });
      return section;
    });
    this.element = h("div", { class: "panel" }, ...sections, this.note);
    this.refresh();
  }

  private boxTools(): HTMLElement {
    const flip = (name: string) => (on: boolean): void => void this.element.classList.toggle(name, !on);
    const least = h("input", { type: "range", min: 0, max: 1, step: 0.01, value: 0.25, "aria-label": "Least score of a box" });
    const shown = h("output", {}, "0.25");
    least.addEventListener("input", () => {
      say(shown, Number(least.value).toFixed(2));
      this.cards.forEach((card) => card instanceof Picture && card.least(Number(least.value)));
    });
    return h("div", { class: "tools", hidden: true }, toggle("Predicted boxes", true, flip("no-boxes")), toggle("True boxes", true, flip("no-truth")),
      h("label", { class: "smoothing" }, "Least score", least, shown));
  }

  private async load(): Promise<void> {
    try {
      const found = await Promise.all(KINDS.map(({ kind }) => api.media(this.id, kind)));
      KINDS.forEach(({ kind, make }, at) => this.fill(kind, found[at] ?? [], make));
      const nothing = "This run has logged nothing but numbers. run.log_image, run.log_histogram and run.log_text add what is seen here.";
      say(this.note, this.cards.size === 0 ? nothing : "");
    } catch (error) {
      say(this.note, `This could not be listed: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  private fill(kind: string, media: Medium[], make: (id: string, name: string) => Card): void {
    const place = this.places.get(kind);
    if (!place) return;
    const byName = new Map<string, Medium[]>();
    for (const one of media) byName.set(one.name, [...(byName.get(one.name) ?? []), one]);
    place.section.hidden = byName.size === 0;
    say(place.count, String(byName.size));
    if (media.some((one) => one.about.boxes)) this.tools.hidden = false;
    for (const [name, of] of byName) {
      const key = `${kind}/${name}`;
      const card = this.cards.get(key) ?? make(this.id, name);
      if (!this.cards.has(key)) place.grid.append(card.element);
      this.cards.set(key, card);
      card.update(of);
    }
  }
}
