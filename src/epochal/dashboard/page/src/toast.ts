/** Short words about what just happened, also read out. */

import { h } from "./dom.js";

const place = h("div", { class: "toasts", role: "status", "aria-live": "polite" });

export function startToasts(): void {
  document.body.append(place);
}

export function toast(text: string, kind: "good" | "bad" | "plain" = "plain"): void {
  const one = h("div", { class: `toast ${kind}` }, text);
  place.append(one);
  window.setTimeout(() => one.remove(), kind === "bad" ? 9000 : 5000);
}

/** Say something only to a screen reader. */
const quiet = h("div", { class: "sr", "aria-live": "polite" });

export function announce(text: string): void {
  if (!quiet.isConnected) document.body.append(quiet);
  quiet.textContent = text;
}

/** Save text or a picture as a file of the user's. */
export function download(name: string, content: Blob): void {
  const url = URL.createObjectURL(content);
  h("a", { href: url, download: name }).click();
  window.setTimeout(() => URL.revokeObjectURL(url), 10000);
}
