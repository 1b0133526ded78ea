/** The bar over the charts: which of them, along what, how smooth. */

import type { AxisName } from "./axis.js";
import type { ChartGrid } from "./chart_grid.js";
import { h, icon, say } from "./dom.js";
import type { Settings } from "./settings.js";

export interface ChartTools {
  element: HTMLElement;
  filter: HTMLInputElement;
  keys: { key: string; what: string; run: () => void }[];
  close: () => void;
}

export function chartTools(grid: ChartGrid, settings: Settings): ChartTools {
  const filter = h("input", { type: "search", placeholder: "Filter charts", "aria-label": "Filter charts by name" });
  filter.addEventListener("input", () => grid.filter(filter.value));
  const axes = segments("Along", ["step", "time", "epoch"], settings.axis, (axis) => settings.set({ axis: axis as AxisName }));
  const scale = toggle("Log scale", settings.log, (log) => settings.set({ log }));
  const marks = toggle("Marks", settings.marks, (on) => settings.set({ marks: on }));
  const smoothness = h("output", {});
  const slider = h("input", { type: "range", min: 0, max: 0.99, step: 0.01, value: settings.smoothing, "aria-label": "Smoothing" });
  const all = h("button", { type: "button", class: "quiet-button", onclick: () => settings.set({ zoom: null }) }, "Show all");
  slider.addEventListener("input", () => settings.set({ smoothing: Number(slider.value) }));
  const show = (): void => {
    say(smoothness, settings.smoothing === 0 ? "off" : settings.smoothing.toFixed(2));
    all.hidden = settings.zoom === null;
    scale.setAttribute("aria-pressed", String(settings.log));
    marks.setAttribute("aria-pressed", String(settings.marks));
    for (const one of axes.querySelectorAll("button")) one.setAttribute("aria-pressed", String(one.textContent === settings.axis));
  };
  show();
  const close = settings.listen(show);
  const smoothing = h("label", { class: "smoothing" }, "Smoothing", slider, smoothness);
  const element = h("div", { class: "tools", role: "toolbar", "aria-label": "Charts" }, filter, axes, scale, marks, smoothing, all);
  const order: AxisName[] = ["step", "time", "epoch"];
  const keys = [
    { key: "/", what: "filter the charts", run: () => filter.focus() },
    { key: "l", what: "linear or logarithmic", run: () => settings.set({ log: !settings.log }) },
    { key: "a", what: "along steps, time or epochs", run: () => settings.set({ axis: order[(order.indexOf(settings.axis) + 1) % 3] ?? "step" }) },
    { key: "m", what: "marks on or off", run: () => settings.set({ marks: !settings.marks }) },
    { key: "0", what: "show the whole curves", run: () => settings.set({ zoom: null }) },
  ];
  return { element, filter, keys, close };
}

function segments(label: string, choices: string[], chosen: string, pick: (choice: string) => void): HTMLElement {
  const group = h("div", { class: "segments", role: "group", "aria-label": label });
  for (const choice of choices) {
    group.append(h("button", {
      type: "button", "aria-pressed": String(choice === chosen),
      onclick: () => {
        for (const one of group.children) one.setAttribute("aria-pressed", String(one.textContent === choice));
        pick(choice);
      },
    }, choice));
  }
  return group;
}

export function toggle(label: string, on: boolean, change: (on: boolean) => void): HTMLButtonElement {
  const button = h("button", { type: "button", class: "toggle", "aria-pressed": String(on) }, label === "Log scale" ? icon("log") : null, label);
  button.addEventListener("click", () => {
    const now = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(now));
    change(now);
  });
  return button;
}
