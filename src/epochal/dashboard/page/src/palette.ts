/** Colours that most people can tell apart: Okabe and Ito's (jfly.uni-koeln.de/color), lighter on a dark page. */

const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a7c00", "#5b5b66"];
const DARK = ["#4aa8e0", "#ff8a3d", "#2fc79b", "#e39cc3", "#f2b43c", "#8fd0f7", "#d9cc4a", "#b3b3c0"];

function isDark(): boolean {
  const chosen = document.documentElement.dataset["theme"];
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

export function colour(index: number): string {
  const palette = isDark() ? DARK : LIGHT;
  return palette[index % palette.length] ?? "#888888";
}

/** The same colour, see-through. */
export function faint(hex: string, share: number): string {
  const part = (at: number): number => parseInt(hex.slice(at, at + 2), 16);
  return `rgba(${part(1)}, ${part(3)}, ${part(5)}, ${share})`;
}

interface Ink {
  text: string;
  muted: string;
  grid: string;
  paper: string;
}

export function ink(): Ink {
  return isDark()
    ? { text: "#e8eaf0", muted: "#98a0b0", grid: "#262b36", paper: "#161a22" }
    : { text: "#1c2230", muted: "#626b7c", grid: "#e9ecf1", paper: "#ffffff" };
}

/** The colour of a mark, by what happened. */
export function markColour(kind: string): string {
  const index = { command: 0, rate: 4, stop: 1, spike: 1, failure: 1, validation: 2, save: 7 }[kind];
  return colour(index ?? 7);
}
