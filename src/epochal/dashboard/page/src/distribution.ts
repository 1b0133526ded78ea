/** A histogram as bars, through its steps. */

import { api } from "./api.js";
import { h, say, svg } from "./dom.js";
import { number, whole } from "./format.js";
import { Steps } from "./steps.js";
import type { Medium } from "./types.js";

const WIDTH = 300;
const HEIGHT = 120;

interface Counted {
  edges: number[];
  counts: number[];
}

export class Distribution {
  readonly element: HTMLElement;
  private readonly bars = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", class: "histogram", role: "img" });
  private readonly low = h("span", {});
  private readonly high = h("span", {});
  private readonly steps: Steps;
  private asked = 0;

  constructor(private readonly id: string, private readonly name: string) {
    this.steps = new Steps(name, (one) => void this.show(one));
    this.bars.setAttribute("aria-label", name);
    this.element = h("figure", { class: "picture" }, this.bars, h("div", { class: "ends muted" }, this.low, this.high),
      h("figcaption", {}, h("b", { title: name }, name), this.steps.told), this.steps.slider);
  }

  update(media: Medium[]): void {
    this.steps.update(media);
  }

  private async show(one: Medium): Promise<void> {
    const asked = (this.asked += 1);
    const { edges, counts } = (await api.medium_json(this.id, one.id).catch(() => ({ edges: [], counts: [] }))) as Counted;
    if (asked !== this.asked) return; // the slider went on
    const [first = 0, last = 0] = [edges[0], edges.at(-1)];
    const top = Math.max(1, ...counts);
    const wide = WIDTH / Math.max(1, counts.length);
    this.bars.replaceChildren(...counts.map((count, at) => {
      const height = (count / top) * (HEIGHT - 4);
      return svg("rect", { x: at * wide, y: HEIGHT - height, width: Math.max(0.5, wide - 0.6), height });
    }));
    say(this.low, number(first, 3));
    say(this.high, number(last, 3));
    const count = counts.reduce((sum, each) => sum + each, 0);
    this.bars.setAttribute("aria-label", `${this.name}: ${whole(count)} values from ${number(first, 3)} to ${number(last, 3)}`);
  }
}
