/** Keys: what each does is registered by the view that is open, and told by the help dialog. */

import { h } from "./dom.js";
import { dialog } from "./dialog.js";

export interface Key {
  key: string;
  what: string;
  run: () => void;
}

const always: Key[] = [];
let current: Key[] = [];

/** The keys that work everywhere. */
export function alwaysKeys(keys: Key[]): void {
  always.push(...keys);
}

/** The keys of the view that is open now, instead of those before. */
export function viewKeys(keys: Key[]): void {
  current = keys;
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input:not([type=checkbox]):not([type=range]), textarea, select");
}

export function startKeys(): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector("dialog[open]")) return;
    if (isTyping(event.target)) {
      if (event.key === "Escape") (event.target as HTMLElement).blur();
      return;
    }
    const onControl = event.target instanceof HTMLElement && event.target.matches("button, a, summary, [tabindex]");
    if (onControl && (event.key === "Enter" || event.key === " ")) return;
    const found = [...current, ...always].find((one) => one.key === event.key);
    if (!found) return;
    event.preventDefault();
    found.run();
  });
}

const SHOWN: Record<string, string> = { ArrowDown: "↓", ArrowUp: "↑", Enter: "Enter", Escape: "Esc" };

export function showHelp(): void {
  const list = h("dl", { class: "keys" });
  for (const { key, what } of [...current, ...always]) {
    list.append(h("dt", {}, h("kbd", {}, SHOWN[key] ?? key)), h("dd", {}, what));
  }
  list.append(h("dt", {}, h("kbd", {}, "← →")), h("dd", {}, "on a chart: read its points"));
  list.append(h("dt", {}, h("kbd", {}, "+ − 0")), h("dd", {}, "on a chart: zoom in, out, show all"));
  dialog("Keys", [list], []);
}
