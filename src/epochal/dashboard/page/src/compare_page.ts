/** Several runs beside each other: their curves in the same charts, their parameters in one table. */

import type { Timeline } from "./axis.js";
import { api, ApiError } from "./api.js";
import { bestOf } from "./chart.js";
import { ChartGrid } from "./chart_grid.js";
import { chartTools, toggle, type ChartTools } from "./chart_tools.js";
import { h, renew, say } from "./dom.js";
import { duration, number, plain } from "./format.js";
import { viewKeys } from "./keys.js";
import { newsOf } from "./news.js";
import { comparePlans, newestAttempt, timeline } from "./plans.js";
import { Settings } from "./settings.js";
import { statePill } from "./state_pill.js";
import { listen } from "./stream.js";
import { throttled } from "./throttled.js";
import { flat } from "./tables.js";
import type { Pulse, RunPage } from "./types.js";
import { failed, isAway, RETRY, type View } from "./view.js";

const MOST = 64; // runs that the server lets a page watch

export class CompareView implements View {
  readonly element = h("div", { class: "compare-page" });
  private readonly settings = new Settings("epochal.compare");
  private readonly grid = new ChartGrid(this.settings, "These runs have logged nothing yet.");
  private readonly tools: ChartTools = chartTools(this.grid, this.settings);
  private readonly legend = h("ul", { class: "legend", "aria-label": "The runs that are compared" });
  private readonly params = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Parameters of the runs" });
  private readonly results = h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Best values of the runs" });
  private readonly title = h("h1", { tabindex: -1 });
  private runs: RunPage[] = [];
  private readonly lines: Timeline[] = [];
  private onlyDifferent = true;
  private leave: (() => void) | null = null;
  private closed = false;
  private away = false;
  private timer = 0;
  private readonly parts: HTMLElement[];
  private readonly reload = throttled(() => this.load().catch(() => undefined), 1500);

  constructor(private ids: string[], private readonly alive: (alive: boolean) => void) {
    document.title = "Comparison · Epochal";
    const different = toggle("Only differences", true, (on) => {
      this.onlyDifferent = on;
      this.tables();
    });
    this.parts = [
      h("a", { href: "#/", class: "back" }, "All runs"), this.title, this.legend,
      this.tools.element, this.grid.element,
      h("section", { class: "panel" }, h("h2", {}, "Best values"), this.results),
      h("section", { class: "panel" }, h("div", { class: "head-row" }, h("h2", {}, "Parameters"), different), this.params),
    ];
    this.element.append(...this.parts);
    viewKeys([...this.tools.keys, { key: "u", what: "back to all runs", run: () => (location.hash = "#/") }]);
    void this.open();
  }

  private async open(): Promise<void> {
    try {
      await this.load();
    } catch (error) {
      if (isAway(error) && !this.closed) this.timer = window.setTimeout(() => void this.open(), RETRY);
      this.element.replaceChildren(h("a", { href: "#/", class: "back" }, "All runs"), failed(error, "These runs could not be opened."));
      return;
    }
    if (this.closed) return;
    if (!this.element.contains(this.grid.element)) this.element.replaceChildren(...this.parts);
    this.leave = listen(this.ids.slice(0, MOST), {
      alive: (alive) => {
        this.alive(alive);
        if (alive && this.away) this.reload();
        this.away = !alive;
      },
      run: (pulse) => this.pulse(pulse),
    });
  }

  private async load(): Promise<void> {
    const found = await Promise.all(this.ids.map((id, at) => api.run(id).catch((error: unknown) => this.instead(at, error))));
    if (this.closed) return;
    this.ids = this.ids.filter((_, at) => found[at]);
    const fresh = found.filter((run) => run !== null);
    if (fresh.length === 0) throw new ApiError(404, "None of them is there any more.");
    say(this.title, fresh.length === 1 ? "1 run, the others are gone" : `${fresh.length} runs compared`);
    const again = fresh.some((run, at) => newestAttempt(run) !== newestAttempt(this.runs[at]));
    this.runs = fresh.map((run, at) => {
      const known = new Map(this.runs[at]?.curves.map((head) => [head.name, head]));
      return { ...run, curves: run.curves.map((head) => Object.assign(known.get(head.name) ?? head, head)) };
    });
    this.runs.forEach((run, at) => (this.lines[at] = Object.assign(this.lines[at] ?? timeline(run), timeline(run))));
    this.grid.add(comparePlans(this.runs, labels(this.runs), this.lines), again);
    this.legend.replaceChildren(...labels(this.runs).map((label, at) => {
      const run = this.runs[at];
      return h("li", {}, h("i", { class: `swatch c${at % 8}` }), h("a", { href: `#/run/${run?.id ?? ""}` }, label), run ? statePill(run.state) : null);
    }));
    this.tables();
  }

  /** What is shown of a run that is not there: what was known of it, if anything was. */
  private instead(at: number, error: unknown): RunPage | null {
    if (error instanceof ApiError && (error.status === 404 || error.status === 422)) return this.runs[at] ?? null;
    throw error;
  }

  private tables(): void {
    const told = this.runs.map(({ name, path, params }) => [name, path, params]);
    renew(this.params, [told, this.onlyDifferent], () => [this.paramTable()]);
    this.results.replaceChildren(this.resultTable());
  }

  private paramTable(): HTMLElement {
    const params = this.runs.map((run) => flat(run.params));
    const names = [...new Set(params.flatMap((one) => Object.keys(one)))].sort();
    const rows = names.map((name) => {
      const values = params.map((one) => (name in one ? plain(one[name]) : "–"));
      return { name, values, differs: new Set(values).size > 1 };
    });
    const shown = rows.filter((row) => row.differs || !this.onlyDifferent);
    if (shown.length === 0) return h("p", { class: "empty" }, names.length === 0 ? "These runs logged no parameters." : "Their parameters are all the same.");
    return this.wide(shown.map(({ name, values, differs }) => h("tr", { class: differs ? "differs" : "" },
      h("th", { scope: "row" }, name, differs ? h("span", { class: "sr" }, " (differs)") : null), ...values.map((value) => h("td", {}, value)))), "Parameters");
  }

  private resultTable(): HTMLElement {
    const names = [...new Set(this.runs.flatMap((run) => run.curves.filter((head) => bestOf(head)).map((head) => head.name)))].sort();
    const took = this.runs.map((run) => run.sessions.reduce((sum, one) => sum + (one.ended ?? one.beat) - one.started, 0));
    const rows = names.map((name) => {
      const heads = this.runs.map((run) => run.curves.find((head) => head.name === name));
      const values = heads.map((head) => (head ? (bestOf(head)?.value ?? null) : null));
      const finite = values.filter((value): value is number => value !== null);
      const top = heads.find(Boolean)?.mode === "min" ? Math.min(...finite) : Math.max(...finite);
      return h("tr", {}, h("th", { scope: "row" }, name), ...values.map((value) =>
        h("td", { class: value === top && finite.length > 1 ? "top" : "" }, number(value), value === top && finite.length > 1 ? h("span", { class: "sr" }, " (the best)") : null)));
    });
    rows.push(h("tr", {}, h("th", { scope: "row" }, "time in training"), ...took.map((seconds) => h("td", {}, duration(seconds)))));
    return this.wide(rows, "Best values");
  }

  private wide(rows: HTMLElement[], label: string): HTMLElement {
    const heads = labels(this.runs).map((name, at) => h("th", { scope: "col" }, h("i", { class: `swatch c${at % 8}` }), name));
    return h("table", { class: "plain wide" }, h("caption", { class: "sr" }, label), h("thead", {}, h("tr", {}, h("td", {}), ...heads)), h("tbody", {}, ...rows));
  }

  private pulse(pulse: Pulse): void {
    this.grid.pulse(pulse);
    if (pulse.ask) void newsOf(pulse.id).ask();
    const run = this.runs.find((one) => one.id === pulse.id);
    const known = new Set(run?.curves.map((head) => head.name));
    if (run?.state !== pulse.state || newestAttempt(run) !== pulse.attempt || Object.keys(pulse.newest).some((name) => !known.has(name))) this.reload();
  }

  close(): void {
    this.closed = true;
    window.clearTimeout(this.timer);
    this.leave?.();
    this.tools.close();
    this.grid.close();
    viewKeys([]);
  }
}

/** The runs' names, with their folders where two are called the same. */
function labels(runs: RunPage[]): string[] {
  const names = runs.map((run) => run.name);
  return runs.map((run) => (names.filter((name) => name === run.name).length > 1 ? run.path : run.name));
}
