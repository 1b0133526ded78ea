/** Charts in groups by the first part of their names; only those near the window are alive. */

import { Chart, type Source } from "./chart.js";
import { h, say } from "./dom.js";
import { byName } from "./format.js";
import type { Settings } from "./settings.js";
import type { Pulse } from "./types.js";

export interface ChartPlan {
  title: string;
  group: string;
  sources: Source[];
}

const ORDER = ["val", "train", "epoch", "fitness", "lr", "metrics"];

function rank(group: string): number {
  const at = ORDER.indexOf(group);
  return at < 0 ? ORDER.length : at;
}

export class ChartGrid {
  readonly element = h("div", { class: "charts" });
  private readonly charts = new Map<string, Chart>();
  private readonly sections = new Map<string, { grid: HTMLElement; count: HTMLElement; section: HTMLElement }>();
  private readonly nothing = h("p", { class: "empty" });
  private readonly seen: IntersectionObserver;
  private readonly of = new WeakMap<Element, Chart>();
  private wanted = "";

  constructor(private readonly settings: Settings, private readonly whenEmpty: string) {
    this.seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const chart = this.of.get(entry.target);
        if (entry.isIntersecting) chart?.show();
        else chart?.hide();
      }
    }, { rootMargin: "400px" });
    this.element.append(this.nothing);
    this.filter("");
  }

  /** Add the charts, and the curves in them, that are not there yet: a run logs new names while it goes on. */
  add(plans: ChartPlan[], again = false): void {
    for (const plan of plans) this.charts.get(plan.title)?.update(plan.sources, again);
    const fresh = plans.filter((plan) => !this.charts.has(plan.title));
    for (const plan of fresh.sort((a, b) => rank(a.group) - rank(b.group) || byName(a.title, b.title))) {
      const chart = new Chart(plan.title, plan.sources, this.settings);
      this.charts.set(plan.title, chart);
      this.of.set(chart.element, chart);
      this.section(plan.group).grid.append(chart.element);
      this.seen.observe(chart.element);
    }
    if (fresh.length > 0) this.filter(this.wanted);
  }

  private section(group: string): { grid: HTMLElement; count: HTMLElement; section: HTMLElement } {
    const found = this.sections.get(group);
    if (found) return found;
    const grid = h("div", { class: "grid" });
    const count = h("span", { class: "count" });
    const section = h("details", { class: "group", open: true }, h("summary", {}, h("h2", {}, group), count), grid);
    const after = [...this.sections].find(([other]) => rank(other) > rank(group))?.[1].section ?? this.nothing;
    this.element.insertBefore(section, after);
    this.sections.set(group, { grid, count, section });
    return { grid, count, section };
  }

  /** Show the charts whose names have all of these words; `/…/` is a regular expression. */
  filter(wanted: string): void {
    this.wanted = wanted;
    const fits = matcher(wanted);
    let shown = 0;
    for (const [title, chart] of this.charts) {
      chart.element.hidden = !fits(title);
      if (!chart.element.hidden) shown += 1;
    }
    for (const { grid, count, section } of this.sections.values()) {
      const left = [...grid.children].filter((one) => !(one as HTMLElement).hidden).length;
      section.hidden = left === 0;
      say(count, String(left));
    }
    this.nothing.hidden = shown > 0;
    say(this.nothing, this.charts.size === 0 ? this.whenEmpty : `No chart's name has “${wanted}” in it.`);
  }

  pulse(pulse: Pulse): void {
    for (const chart of this.charts.values()) chart.pulse(pulse);
  }

  close(): void {
    this.seen.disconnect();
    for (const chart of this.charts.values()) chart.hide();
  }
}

function matcher(wanted: string): (text: string) => boolean {
  const inside = /^\/(.+)\/$/.exec(wanted.trim())?.[1];
  if (inside) {
    try {
      const pattern = new RegExp(inside, "i");
      return (text) => pattern.test(text);
    } catch {
      return () => true; // half typed
    }
  }
  const words = wanted.toLowerCase().split(/\s+/).filter(Boolean);
  return (text) => words.every((word) => text.toLowerCase().includes(word));
}
