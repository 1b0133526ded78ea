/** Tabs: the arrow keys go from one to the next; a view is made when it is first looked at. */

import { h, say } from "./dom.js";

export interface Tab {
  name: string;
  label: string;
  make: () => HTMLElement;
}

export class Tabs {
  readonly list: HTMLElement;
  readonly panel = h("div", { class: "tab-panel", role: "tabpanel", id: "tab-panel" });
  private readonly buttons = new Map<string, HTMLButtonElement>();
  private readonly made = new Map<string, HTMLElement>();
  current = "";

  constructor(private readonly tabs: Tab[], private readonly picked: (name: string) => void) {
    this.list = h("div", { class: "tabs", role: "tablist", "aria-label": "Parts of this run" });
    for (const { name, label } of tabs) {
      const count = h("span", { class: "count" });
      const button = h("button", { type: "button", role: "tab", id: `tab-${name}`, "aria-controls": "tab-panel", onclick: () => this.picked(name) }, label, count);
      this.buttons.set(name, button);
      this.list.append(button);
    }
    this.list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) this.next(step, true);
    });
  }

  next(step: number, focus = false): void {
    const names = this.tabs.map((tab) => tab.name).filter((name) => !this.buttons.get(name)?.hidden);
    const name = names[(names.indexOf(this.current) + step + names.length) % names.length] ?? "";
    this.picked(name);
    if (focus) this.buttons.get(name)?.focus();
  }

  show(name: string): void {
    const tab = this.tabs.find((one) => one.name === name) ?? this.tabs[0];
    if (!tab || tab.name === this.current) return;
    this.current = tab.name;
    for (const [other, button] of this.buttons) {
      button.setAttribute("aria-selected", String(other === tab.name));
      button.tabIndex = other === tab.name ? 0 : -1;
    }
    const view = this.made.get(tab.name) ?? tab.make();
    this.made.set(tab.name, view);
    this.panel.setAttribute("aria-labelledby", `tab-${tab.name}`);
    this.panel.replaceChildren(view);
    this.buttons.get(tab.name)?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  /** How many there are, behind a tab's name; null hides the tab. */
  count(name: string, count: number | null): void {
    const button = this.buttons.get(name);
    if (!button) return;
    button.hidden = count === null && this.current !== name;
    const shown = button.querySelector(".count");
    if (shown) say(shown, count ? String(count) : "");
  }
}
