/** Layers and gradients: all of them at a glance, the newest value of each on one logarithmic scale. */

import { h } from "./dom.js";
import { number } from "./format.js";
import type { CurveHead } from "./types.js";

/** gradient/model.0.weight -> ["gradient", "model.0.weight"]. */
function parts(name: string): [string, string] {
  const cut = name.indexOf("/");
  return cut < 0 ? ["", name] : [name.slice(0, cut), name.slice(cut + 1)];
}

export function layerBars(heads: CurveHead[]): HTMLElement {
  const kinds = new Map<string, CurveHead[]>();
  for (const head of heads) {
    const [kind] = parts(head.name);
    kinds.set(kind, [...(kinds.get(kind) ?? []), head]);
  }
  return h("div", { class: "layer-kinds" }, ...[...kinds].map(([kind, of]) => bars(kind, of)));
}

function bars(kind: string, heads: CurveHead[]): HTMLElement {
  const sizes = heads.map((head) => Math.abs(head.value ?? 0)).filter((value) => value > 0);
  const top = Math.log10(Math.max(...sizes, 1e-12));
  const bottom = Math.min(Math.log10(Math.min(...sizes, 1)), top - 1);
  const rows = heads.map((head) => {
    const value = head.value;
    const share = value ? Math.max(0.02, (Math.log10(Math.abs(value)) - bottom) / (top - bottom)) : 0;
    const meter = h("i", { class: value === null ? "bar bad" : "bar" });
    meter.style.inlineSize = `${value === null ? 100 : share * 100}%`;
    return h("tr", {}, h("th", { scope: "row" }, parts(head.name)[1]), h("td", { class: "bar-cell" }, meter),
      h("td", { class: "right" }, value === null ? "not finite" : number(value, 3)));
  });
  return h("details", { class: "group layer-group", open: heads.length <= 40 }, h("summary", {}, h("h2", {}, kind || "layers"), h("span", { class: "count" }, String(heads.length))),
    h("table", { class: "bars" }, h("caption", { class: "sr" }, `Newest value of each ${kind}, logarithmic`), h("tbody", {}, ...rows)));
}
