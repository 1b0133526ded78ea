/** The list of runs. */

import { api } from "./api.js";
import { h, say } from "./dom.js";
import { viewKeys } from "./keys.js";
import { failed, type View } from "./view.js";
import { COLUMNS, matches, metricColumn, sorted, type Column } from "./runs_columns.js";
import { RunLine } from "./run_line.js";
import { listen } from "./stream.js";
import { throttled } from "./throttled.js";
import type { RunRow } from "./types.js";

const FIRST = 100; // lines that are made at once; the others as one scrolls to them

export class RunsView implements View {
  readonly element: HTMLElement;
  private runs: RunRow[] = [];
  private version: number | undefined;
  private shown: RunRow[] = [];
  private readonly lines = new Map<string, RunLine>();
  private readonly chosen = new Set<string>();
  private readonly filter = h("input", { type: "search", placeholder: "Filter by name, tag or state", "aria-label": "Filter runs" });
  private readonly states = h("div", { class: "chips", role: "group", "aria-label": "Filter by state" });
  private readonly metric = h("select", { "aria-label": "Show the best of" });
  private readonly compare = h("button", { type: "button", class: "primary", onclick: () => this.openCompare() }, "Compare");
  private readonly head = h("tr", {});
  private readonly body = h("tbody", {});
  private readonly note = h("div", { class: "empty" }, "Looking for runs…");
  private readonly end = h("div", { class: "list-end" });
  private state = "";
  private sort = { column: "started", down: true };
  private most = FIRST;
  private at = -1;
  private readonly leave: () => void;
  private readonly more: IntersectionObserver;
  private readonly reload = throttled(() => this.load(), 700);
  private readonly timer: number;

  constructor(private readonly alive: (alive: boolean) => void) {
    document.title = "Runs · Epochal";
    const table = h("table", { class: "runs" }, h("caption", { class: "sr" }, "Runs"), h("thead", {}, this.head), this.body);
    const tools = h("div", { class: "tools" }, this.filter, this.states, h("label", { class: "pick" }, "Best of", this.metric), this.compare);
    this.element = h("div", { class: "runs-page" }, h("h1", { tabindex: -1, class: "sr" }, "Runs"), tools, table, this.note, this.end);
    this.filter.addEventListener("input", () => this.showFirst());
    this.metric.addEventListener("change", () => {
      localStorage.setItem("epochal.metric", this.metric.value);
      this.lines.clear();
      this.body.replaceChildren();
      this.show();
    });
    this.more = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting) || this.shown.length <= this.most) return;
      this.most += FIRST;
      this.show();
    }, { rootMargin: "600px" });
    this.more.observe(this.end);
    this.leave = listen([], { runs: () => this.reload(), alive: (on) => this.hear(on) });
    this.timer = window.setInterval(() => this.lines.forEach((line) => line.tick()), 5000);
    viewKeys(this.keys());
    this.reload();
  }

  private hear(on: boolean): void {
    this.alive(on);
    if (on) this.reload();
  }

  private keys() {
    return [
      { key: "/", what: "filter the runs", run: () => this.filter.focus() },
      { key: "j", what: "the next run", run: () => this.move(1) },
      { key: "k", what: "the run before", run: () => this.move(-1) },
      { key: "ArrowDown", what: "the next run", run: () => this.move(1) },
      { key: "ArrowUp", what: "the run before", run: () => this.move(-1) },
      { key: "Enter", what: "open it", run: () => this.openCurrent() },
      { key: "x", what: "choose it for a comparison", run: () => this.chooseCurrent() },
      { key: "c", what: "compare the chosen runs", run: () => this.openCompare() },
    ];
  }

  private async load(): Promise<void> {
    try {
      const found = await api.runs(this.version);
      const fresh = new Map(found.runs.map((run) => [run.id, run]));
      const gone = new Set(found.gone);
      const kept = found.all === false ? this.runs.filter((run) => !fresh.has(run.id) && !gone.has(run.id)) : [];
      this.runs = [...kept, ...found.runs];
      this.version = found.version;
      this.show();
    } catch (error) {
      if (this.runs.length === 0) this.note.replaceChildren(failed(error, "The runs could not be listed."));
      this.note.hidden = this.runs.length > 0;
    }
  }

  private columns(): Column[] {
    const extra = this.metric.value;
    return extra ? COLUMNS.flatMap((one) => (one.key === "fitness" ? [one, metricColumn(extra)] : [one])) : COLUMNS;
  }

  /** Others are shown: one begins to look at the top again. */
  private showFirst(): void {
    this.most = FIRST;
    this.show();
  }

  private show(): void {
    this.choices();
    const columns = this.columns();
    const found = this.runs.filter((run) => matches(run, this.filter.value));
    this.chips(found);
    const wanted = found.filter((run) => !this.state || run.state === this.state);
    this.shown = sorted(wanted, columns, this.sort.column, this.sort.down);
    this.heads(columns);
    const rows = this.shown.slice(0, this.most).map((run) => this.line(run, columns).element);
    for (const line of this.lines.values()) if (!rows.includes(line.element)) line.element.remove();
    rows.forEach((row, at) => {
      if (this.body.children[at] !== row) this.body.insertBefore(row, this.body.children[at] ?? null);
    });
    this.empty();
    this.tellChosen();
  }

  private line(run: RunRow, columns: Column[]): RunLine {
    const line = this.lines.get(run.id) ?? new RunLine(run, columns, (on) => this.choose(run.id, on));
    this.lines.set(run.id, line);
    line.update(run);
    line.choose(this.chosen.has(run.id));
    return line;
  }

  private heads(columns: Column[]): void {
    const made = `${columns.map((one) => one.label).join()} ${this.sort.column} ${this.sort.down}`;
    if (this.head.dataset["made"] === made) return;
    this.head.dataset["made"] = made;
    const focused = (document.activeElement as HTMLElement | null)?.dataset["column"];
    this.head.replaceChildren(h("th", { scope: "col" }, h("span", { class: "sr" }, "Compare")), ...columns.map((one) => this.columnHead(one)));
    if (focused) this.head.querySelector<HTMLElement>(`[data-column="${CSS.escape(focused)}"]`)?.focus();
  }

  private columnHead(column: Column): HTMLElement {
    const here = this.sort.column === column.key;
    const order = here ? (this.sort.down ? "descending" : "ascending") : "none";
    if (!column.value) return h("th", { scope: "col", class: `col-${column.key}` }, column.label);
    const arrow = h("span", { class: "arrow", "aria-hidden": "true" }, here ? (this.sort.down ? "↓" : "↑") : "");
    return h("th", { scope: "col", class: `col-${column.key}`, "aria-sort": order }, h("button", {
      type: "button", "data-column": column.key, title: column.label,
      onclick: () => {
        this.sort = { column: column.key, down: here ? !this.sort.down : column.down === true };
        this.showFirst();
      },
    }, h("span", { class: "head-label" }, column.label), arrow));
  }

  private chips(found: RunRow[]): void {
    const counts = new Map<string, number>();
    for (const run of found) counts.set(run.state, (counts.get(run.state) ?? 0) + 1);
    if (this.state && !counts.has(this.state)) counts.set(this.state, 0);
    const made = JSON.stringify([...counts, this.state]);
    if (this.states.dataset["made"] === made) return;
    this.states.dataset["made"] = made;
    this.states.replaceChildren(...[...counts].sort().map(([state, count]) => h("button", {
      type: "button", class: `chip ${state}`, "aria-pressed": String(this.state === state),
      onclick: () => {
        this.state = this.state === state ? "" : state;
        this.showFirst();
      },
    }, state, h("span", { class: "count" }, String(count)))));
  }

  /** The curves whose best can be shown. */
  private choices(): void {
    const names = [...new Set(this.runs.flatMap((run) => Object.keys(run.best)))].filter((name) => name !== "fitness").sort();
    if (this.metric.dataset["made"] === names.join("\n")) return;
    this.metric.dataset["made"] = names.join("\n");
    const kept = this.metric.value || localStorage.getItem("epochal.metric") || "";
    const first = names.includes(kept) ? kept : names.includes("val/loss") ? "val/loss" : (names.find((name) => name.startsWith("val/")) ?? "");
    this.metric.replaceChildren(h("option", { value: "" }, "nothing more"), ...names.map((name) => h("option", { value: name }, name)));
    this.metric.value = first;
    this.lines.clear();
    this.body.replaceChildren();
  }

  private empty(): void {
    this.note.hidden = this.shown.length > 0;
    if (this.runs.length > 0) say(this.note, "No run is like that. Take a word out of the filter.");
    else {
      this.note.replaceChildren(h("h2", {}, "No runs here yet"),
        h("p", {}, "A training that is attached with epochal.attach(trainer), or written with epochal.Loop, keeps its run below this folder and appears here by itself, within a second."));
    }
    for (const part of [this.body.parentElement, this.states, this.filter]) if (part) part.hidden = this.runs.length === 0;
  }

  private move(step: number): void {
    this.at = Math.min(Math.min(this.shown.length, this.most) - 1, Math.max(0, this.at + step));
    const run = this.shown[this.at];
    if (run) this.lines.get(run.id)?.focus();
  }

  private openCurrent(): void {
    const run = this.shown[this.at];
    if (run) location.hash = `#/run/${run.id}`;
  }

  private chooseCurrent(): void {
    const run = this.shown[this.at];
    if (run) this.choose(run.id, !this.chosen.has(run.id));
  }

  private choose(id: string, on: boolean): void {
    if (on) this.chosen.add(id);
    else this.chosen.delete(id);
    this.lines.get(id)?.choose(on);
    this.tellChosen();
  }

  private tellChosen(): void {
    this.compare.disabled = this.chosen.size < 2;
    say(this.compare, this.chosen.size === 0 ? "Compare" : `Compare ${this.chosen.size}`);
    this.compare.title = this.chosen.size < 2 ? "Choose two runs or more" : "";
  }

  private openCompare(): void {
    if (this.chosen.size >= 2) location.hash = `#/compare/${[...this.chosen].join(",")}`;
  }

  close(): void {
    this.leave();
    this.more.disconnect();
    window.clearInterval(this.timer);
    viewKeys([]);
  }
}
