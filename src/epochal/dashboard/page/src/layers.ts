/** Layers and gradients: all of them at a glance, the newest value of each on one logarithmic scale. */

import { h, renew, say } from "./dom.js";
import { number } from "./format.js";
import type { CurveHead } from "./types.js";

const MANY = 40; // layers of a kind that are not shown until they are asked for

/** gradient/model.0.weight -> ["gradient", "model.0.weight"]. */
function parts(name: string): [string, string] {
  const cut = name.indexOf("/");
  return cut < 0 ? ["", name] : [name.slice(0, cut), name.slice(cut + 1)];
}

export class LayerBars {
  readonly element = h("div", { class: "layer-kinds" });
  private readonly kinds = new Map<string, { count: HTMLElement; body: HTMLElement }>();

  update(heads: CurveHead[]): void {
    const kinds = new Map<string, CurveHead[]>();
    for (const head of heads) {
      const [kind] = parts(head.name);
      kinds.set(kind, [...(kinds.get(kind) ?? []), head]);
    }
    for (const [kind, of] of kinds) {
      const { count, body } = this.kinds.get(kind) ?? this.make(kind, of.length);
      say(count, String(of.length));
      renew(body, of.map(({ name, value }) => [name, value]), () => rows(of));
    }
  }

  private make(kind: string, most: number): { count: HTMLElement; body: HTMLElement } {
    const made = { count: h("span", { class: "count" }), body: h("tbody", {}) };
    this.kinds.set(kind, made);
    this.element.append(h("details", { class: "group layer-group", open: most <= MANY }, h("summary", {}, h("h2", {}, kind || "layers"), made.count),
      h("table", { class: "bars" }, h("caption", { class: "sr" }, `Newest value of each ${kind}, logarithmic`), made.body)));
    return made;
  }
}

function rows(heads: CurveHead[]): HTMLElement[] {
  const sizes = heads.map((head) => Math.abs(head.value ?? 0)).filter((value) => value > 0);
  const top = Math.log10(Math.max(...sizes, 1e-12));
  const bottom = Math.min(Math.log10(Math.min(...sizes, 1)), top - 1);
  return heads.map(({ name, value }) => {
    const share = value ? Math.max(0.02, (Math.log10(Math.abs(value)) - bottom) / (top - bottom)) : 0;
    const meter = h("i", { class: value === null ? "bar bad" : "bar" });
    meter.style.inlineSize = `${value === null ? 100 : share * 100}%`;
    return h("tr", {}, h("th", { scope: "row" }, parts(name)[1]), h("td", { class: "bar-cell" }, meter),
      h("td", { class: "right" }, value === null ? "not finite" : number(value, 3)));
  });
}
