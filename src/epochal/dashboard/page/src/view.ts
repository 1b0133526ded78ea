/** What fills the page: one view at a time. */

import { ApiError } from "./api.js";
import { h } from "./dom.js";

export interface View {
  readonly element: HTMLElement;
  close(): void;
}

/** Milliseconds after which a server that did not answer is asked again. */
export const RETRY = 2000;

export function isAway(error: unknown): boolean {
  return error instanceof ApiError && error.status === 0;
}

/** What went wrong, and what helps. */
export function failed(error: unknown, what: string): HTMLElement {
  const status = error instanceof ApiError ? error.status : -1;
  const help = status === 401 || status === 403
    ? "This page was opened without its key. Run epochal dashboard again and open the link that it prints."
    : status === 0
      ? "The server does not answer. It may have been ended; epochal dashboard starts it again. This page goes on as soon as it is back."
      : error instanceof Error ? error.message : String(error);
  return h("div", { class: "failure", role: "alert" }, h("h2", {}, what), h("p", {}, help));
}
