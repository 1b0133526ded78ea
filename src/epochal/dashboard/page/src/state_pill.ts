/** How a run is, as a word with a sign: not by its colour alone. */

import { h } from "./dom.js";
import type { State } from "./types.js";

const SIGNS: Record<State, string> = {
  running: "●", paused: "‖", finished: "✓", stopped: "■", failed: "✕", interrupted: "■", preempted: "■", crashed: "✕",
};

export function statePill(state: State): HTMLElement {
  return h("span", { class: `state ${state in SIGNS ? state : ""}` }, h("i", { "aria-hidden": "true" }, SIGNS[state] ?? "?"), state);
}
