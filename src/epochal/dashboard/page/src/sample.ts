/** A text that was logged, through its steps. */

import { api } from "./api.js";
import { h, say } from "./dom.js";
import { Steps } from "./steps.js";
import type { Medium } from "./types.js";

export class Sample {
  readonly element: HTMLElement;
  private readonly text = h("pre", { tabindex: 0 });
  private readonly steps: Steps;
  private asked = 0;

  constructor(private readonly id: string, name: string) {
    this.text.setAttribute("aria-label", name);
    this.steps = new Steps(name, (one) => void this.show(one));
    this.element = h("figure", { class: "picture" }, h("figcaption", {}, h("b", { title: name }, name), this.steps.told), this.text, this.steps.slider);
  }

  update(media: Medium[]): void {
    this.steps.update(media);
  }

  private async show(one: Medium): Promise<void> {
    const asked = (this.asked += 1);
    const found = await api.medium_json(this.id, one.id).catch((error: unknown) => ({ text: String(error) }));
    if (asked !== this.asked) return;
    const text = found && typeof found === "object" && "text" in found ? found.text : found; // a text that is JSON comes as such
    say(this.text, typeof text === "string" ? text : JSON.stringify(text, null, 2));
  }
}
