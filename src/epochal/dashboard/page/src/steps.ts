/** A slider through the steps at which something was logged; it stays with the newest until it is moved. */

import { h, say } from "./dom.js";
import { whole } from "./format.js";
import type { Medium } from "./types.js";

export class Steps {
  readonly slider = h("input", { type: "range", min: 0, step: 1, hidden: true });
  readonly told = h("span", { class: "muted" });
  private media: Medium[] = [];
  private newest = true;

  constructor(name: string, private readonly show: (one: Medium) => void) {
    this.slider.setAttribute("aria-label", `Step of ${name}`);
    this.slider.addEventListener("input", () => {
      this.newest = Number(this.slider.value) === this.media.length - 1;
      this.tell();
    });
  }

  update(media: Medium[]): void {
    if (media.length === this.media.length) return;
    this.media = media;
    this.slider.max = String(media.length - 1);
    if (this.newest) this.slider.value = this.slider.max;
    this.slider.hidden = media.length < 2;
    this.tell();
  }

  private tell(): void {
    const one = this.media[Number(this.slider.value)];
    if (!one) return;
    say(this.told, `epoch ${one.epoch + 1} · step ${whole(one.step)}`);
    this.slider.setAttribute("aria-valuetext", `step ${one.step}`);
    this.show(one);
  }
}
