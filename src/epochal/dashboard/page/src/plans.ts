/** Which charts a run, or several runs, have, and which lines are in each. */

import type { Timeline } from "./axis.js";
import type { Source } from "./chart.js";
import type { ChartPlan } from "./chart_grid.js";
import type { Past } from "./live_curve.js";
import type { CurveHead, RunPage } from "./types.js";

const EPOCH = "epoch/";
const POINT = "point/";
const EARLIER = 4; // attempts that later ones repeat, the newest

export function timeline(run: RunPage): Timeline {
  return { started: run.sessions[0]?.started ?? 0, epochs: run.epochs };
}

/** Of two answers with another one, the steps of the newest attempt may have been repeated since. */
export function newestAttempt(run: RunPage | null | undefined): number {
  return run?.attempts.at(-1)?.id ?? 0;
}

function groupOf(name: string): string {
  const cut = name.indexOf("/");
  return cut > 0 ? name.slice(0, cut) : "metrics";
}

export type Room = "charts" | "layers" | "system";

export function roomOf(head: CurveHead): Room {
  if (head.kind === "layers") return "layers";
  if (head.kind === "system" || head.name.startsWith("system/") || head.name.startsWith("epoch/system/")) return "system";
  return "charts";
}

/**
 * A curve of batches has the means of its epochs in the same chart; a validation's curve has the training's means beside
 * it, to see where the two part.
 */
export function runPlans(run: RunPage, line: Timeline, room: Room): ChartPlan[] {
  const heads = new Map(run.curves.map((head) => [head.name, head]));
  const source = (head: CurveHead, label: string, colour: number, quiet = false): Source => ({
    id: run.id, curve: head.name, label, colour, quiet, timeline: line, head,
  });
  const plans: ChartPlan[] = [];
  for (const head of run.curves) {
    const { name } = head;
    if (roomOf(head) !== room || head.kind === "final") continue;
    if ([EPOCH, POINT].some((before) => name.startsWith(before) && heads.has(name.slice(before.length)))) continue;
    const sources = [source(head, head.kind === "batch" ? "each batch" : groupOf(name), 0)];
    const mean = heads.get(EPOCH + name);
    const apart = heads.get(POINT + name);
    if (mean) sources.push(source(mean, "mean of the epoch", 1));
    else if (apart) sources.push(source(apart, "outside batches", 1));
    if (room === "charts" && head.kind !== "epoch") {
      sources.push(...earlier(run).map((past) => ({ ...source(head, `attempt ${past.attempt}, repeated since`, 7, true), past })));
    }
    const trained = name.startsWith("val/") ? heads.get(`${EPOCH}train/${name.slice(4)}`) ?? heads.get(`train/${name.slice(4)}`) : undefined;
    if (trained) sources.push(source(trained, "train", 4, true));
    plans.push({ title: name, group: groupOf(name), sources });
  }
  return plans;
}

/** What earlier attempts measured at steps that later ones repeated. */
function earlier(run: RunPage): Past[] {
  const found = run.attempts.slice(0, -1).map((one, at) => ({
    attempt: one.id,
    begin: Math.min(...run.attempts.slice(at + 1).map((later) => later.from_step)) + 1,
  }));
  return found.slice(-EARLIER);
}

/** One chart for each name, with a line for each run that has it. */
export function comparePlans(runs: RunPage[], labels: string[], lines: Timeline[]): ChartPlan[] {
  const plans = new Map<string, ChartPlan>();
  runs.forEach((run, at) => {
    for (const head of run.curves) {
      if (head.kind === "final" || roomOf(head) !== "charts") continue;
      const plan = plans.get(head.name) ?? { title: head.name, group: groupOf(head.name), sources: [] };
      plan.sources.push({
        id: run.id, curve: head.name, label: labels[at] ?? run.name, colour: at, quiet: false,
        timeline: lines[at] ?? timeline(run), head,
      });
      plans.set(head.name, plan);
    }
  });
  return [...plans.values()];
}
