/** Which states are ends. */

import type { State } from "./types.js";

const OVER: State[] = ["finished", "stopped", "failed", "interrupted", "preempted", "crashed"];

export function isOver(state: State): boolean {
  return OVER.includes(state);
}
