/** Light, dark, or as the system has it. */

import { icon, type IconName } from "./dom.js";

const ORDER = ["auto", "light", "dark"] as const;
type Theme = (typeof ORDER)[number];
const SIGN: Record<Theme, IconName> = { auto: "auto", light: "sun", dark: "moon" };
const listeners = new Set<() => void>();

function chosen(): Theme {
  const saved = localStorage.getItem("epochal.theme");
  return ORDER.find((one) => one === saved) ?? "auto";
}

function apply(theme: Theme): void {
  if (theme === "auto") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = theme;
  listeners.forEach((listener) => listener());
}

/** Be told when the colours change; the returned function ends that. */
export function onTheme(listener: () => void): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function nextTheme(): void {
  const next = ORDER[(ORDER.indexOf(chosen()) + 1) % ORDER.length] ?? "auto";
  localStorage.setItem("epochal.theme", next);
  apply(next);
}

/** Make the switch a button, whose name says what is chosen. */
export function themeSwitch(button: HTMLButtonElement): void {
  const show = (): void => {
    const label = `Colours: ${chosen() === "auto" ? "as the system" : chosen()}`;
    button.setAttribute("aria-label", label);
    button.title = `${label} (t)`;
    button.replaceChildren(icon(SIGN[chosen()]));
  };
  button.addEventListener("click", nextTheme);
  listeners.add(show);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(chosen()));
  apply(chosen());
}
