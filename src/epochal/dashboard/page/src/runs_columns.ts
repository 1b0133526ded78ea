/** What the list of runs shows of each, and how it is sorted and filtered. */

import { ago, byName, duration, moment, number, whole } from "./format.js";
import { h } from "./dom.js";
import { isOver } from "./states.js";
import { sparkline } from "./sparkline.js";
import { statePill } from "./state_pill.js";
import type { Extremes, RunRow } from "./types.js";

export interface Column {
  key: string;
  label: string;
  cell: (run: RunRow) => (Node | string)[];
  value?: (run: RunRow) => number | string | null; // what it is sorted by; none: it is not
  down?: boolean; // the greatest first, at the first click
}

const ORDER = ["running", "paused", "failed", "crashed", "stopped", "interrupted", "preempted", "finished"];

function seconds(run: RunRow): number | null {
  if (run.started === null || run.error) return null;
  return (run.ended ?? (isOver(run.state) ? run.beat : null) ?? Date.now() / 1000) - run.started;
}

function progress(run: RunRow): (Node | string)[] {
  if (run.error) return ["–"];
  const done = run.epoch === null ? 0 : run.epoch + 1;
  if (!run.num_epochs) return [run.step === null ? "–" : `step ${whole(run.step)}`];
  const share = isOver(run.state) && run.state === "finished" ? 1 : done / run.num_epochs;
  return [h("progress", { max: 1, value: Math.min(1, share), "aria-label": "Progress" }), h("span", { class: "muted" }, `${done}/${run.num_epochs}`)];
}

function name(run: RunRow): (Node | string)[] {
  const tags = run.tags.map((tag) => h("span", { class: "tag" }, tag));
  const folder = run.path.split("/").slice(0, -1).join("/");
  return [h("a", { href: `#/run/${run.id}`, class: "run-link" }, run.name), ...tags,
    h("small", {}, [run.error ?? run.trainer, folder].filter(Boolean).join(" · "))];
}

export const COLUMNS: Column[] = [
  { key: "name", label: "Run", cell: name, value: (run) => run.name },
  { key: "state", label: "State", cell: (run) => [statePill(run.state)], value: (run) => ORDER.indexOf(run.state) },
  { key: "spark", label: "Course", cell: (run) => (run.spark && run.spark.values.length > 1 ? [sparkline(run.spark.name, run.spark.values), h("small", {}, run.spark.name)] : ["–"]) },
  { key: "progress", label: "Epochs", cell: progress, value: (run) => run.epoch, down: true },
  { key: "fitness", label: "Best fitness", cell: (run) => [number(run.best_fitness)], value: (run) => run.best_fitness, down: true },
  { key: "started", label: "Began", cell: (run) => [h("time", { title: moment(run.started) }, ago(run.started))], value: (run) => run.started, down: true },
  { key: "duration", label: "Took", cell: (run) => [duration(seconds(run))], value: seconds, down: true },
];

export function better(of: Extremes | undefined): number | null {
  if (!of) return null;
  return of.mode === "max" ? of.high : of.mode === "min" ? of.low : of.value;
}

export function metricColumn(metric: string): Column {
  return { key: "metric", label: metric, cell: (run) => [number(better(run.best[metric]))], value: (run) => better(run.best[metric]) };
}

export function sorted(runs: RunRow[], columns: Column[], key: string, down: boolean): RunRow[] {
  const value = columns.find((one) => one.key === key)?.value ?? (() => null);
  const sign = down ? -1 : 1;
  return [...runs].sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    if (one === null || other === null) return (one === null ? 1 : 0) - (other === null ? 1 : 0); // none is last, always
    if (typeof one === "string") return sign * byName(one, String(other));
    return sign * (one - Number(other));
  });
}

/** Every word is in the run's name, folder, trainer, state or a tag; `state:` and `tag:` look only there. */
export function matches(run: RunRow, wanted: string): boolean {
  const all = [run.name, run.path, run.trainer ?? "", run.state, ...run.tags].join("\n").toLowerCase();
  return wanted.toLowerCase().split(/\s+/).filter(Boolean).every((word) => {
    if (word.startsWith("state:")) return run.state.startsWith(word.slice(6));
    if (word.startsWith("tag:")) return run.tags.some((tag) => tag.toLowerCase().includes(word.slice(4)));
    return all.includes(word);
  });
}
