/** A run: what it measures, how it is steered, everything it keeps. */

import type { Timeline } from "./axis.js";
import { api, ApiError } from "./api.js";
import { ChartGrid } from "./chart_grid.js";
import { chartTools, type ChartTools } from "./chart_tools.js";
import { bestOf } from "./chart.js";
import { ConsoleView } from "./console_view.js";
import { Controls } from "./controls.js";
import { h, renew, say } from "./dom.js";
import { failed, isAway, RETRY, type View } from "./view.js";
import { duration, moment, number, whole } from "./format.js";
import { viewKeys } from "./keys.js";
import { LayerBars } from "./layers.js";
import { MediaView } from "./media_view.js";
import { newsOf } from "./news.js";
import { Notes } from "./notes.js";
import { newestAttempt, roomOf, runPlans, timeline, type Room } from "./plans.js";
import { isOver } from "./states.js";
import { Settings } from "./settings.js";
import { statePill } from "./state_pill.js";
import { listen } from "./stream.js";
import { throttled } from "./throttled.js";
import { auditTable, callbackTable, checkpointTable, facts, happeningTable } from "./tables.js";
import { Tabs } from "./tabs.js";
import type { CurveHead, Pulse, RunPage as Run } from "./types.js";
import { announce } from "./toast.js";

export class RunView implements View {
  readonly element = h("div", { class: "run-page" });
  private readonly settings = new Settings("epochal.charts");
  private readonly controls: Controls;
  private readonly notes: Notes;
  private readonly grids = new Map<Room, ChartGrid>();
  private readonly tools: ChartTools[] = [];
  private readonly state = h("span", {});
  private readonly where = h("p", { class: "progress-text" });
  private readonly bar = h("progress", { max: 1, value: 0, "aria-label": "Progress of the training" });
  private readonly banner = h("div", { class: "banners" });
  private readonly finals = h("div", { class: "tiles" });
  private readonly bars = new LayerBars();
  private readonly rank = h("label", { class: "pick" });
  private readonly title = h("h1", { tabindex: -1 });
  private readonly lists: Record<"checkpoints" | "callbacks" | "history" | "params" | "about", HTMLElement>;
  private readonly line: Timeline = { started: 0, epochs: [] };
  private tabs!: Tabs;
  private run: Run | null = null;
  private media: MediaView | null = null;
  private text: ConsoleView | null = null;
  private seen: Partial<Pulse> = {};
  private leave: (() => void) | null = null;
  private closed = false;
  private away = false;
  private clock = 0;
  private readonly reload = throttled(() => this.load(), 1000);
  private readonly askHistory = throttled(() => this.history().catch(() => undefined), 150);

  constructor(private readonly id: string, tab: string, private readonly alive: (alive: boolean) => void) {
    this.controls = new Controls(id);
    this.notes = new Notes(id, () => this.reload());
    const panel = (): HTMLElement => h("div", { class: "panel" });
    this.lists = { checkpoints: panel(), callbacks: panel(), history: panel(), params: panel(), about: panel() };
    void this.open(tab);
  }

  private async open(tab: string): Promise<void> {
    if (!this.element.hasChildNodes()) this.element.append(h("p", { class: "empty" }, "Opening the run…"));
    try {
      this.run = await api.run(this.id);
      if (this.closed) return;
    } catch (error) {
      if (isAway(error) && !this.closed) this.clock = window.setTimeout(() => void this.open(tab), RETRY);
      this.element.replaceChildren(failed(error, "This run could not be opened."));
      return;
    }
    this.build(tab);
    this.show();
    await this.history().catch(() => undefined);
    if (this.closed) return;
    this.clock = window.setInterval(() => this.tellProgress(), 1000);
    this.leave = listen([this.id], {
      alive: (alive) => {
        this.alive(alive);
        if (alive && this.away) this.comeBack();
        this.away = !alive;
      },
      run: (pulse) => this.pulse(pulse),
    });
  }

  private build(tab: string): void {
    const back = h("a", { href: "#/", class: "back" }, "All runs");
    const head = h("header", { class: "run-head" }, back, h("div", { class: "run-title" }, this.title, this.state, this.rank), this.where, this.bar);
    const { lists } = this;
    const about = (): HTMLElement => h("div", { class: "columns" }, this.notes.element, h("section", {}, h("h2", {}, "Parameters"), lists.params), h("section", {}, h("h2", {}, "Environment"), lists.about));
    this.tabs = new Tabs([
      { name: "charts", label: "Charts", make: () => h("div", {}, this.finals, this.charts("charts", "Nothing was logged yet. Charts appear with the first run.log.")) },
      { name: "media", label: "Media", make: () => (this.media = new MediaView(this.id)).element },
      { name: "layers", label: "Layers", make: () => h("div", {}, this.bars.element, this.charts("layers", "No layers are watched. GradientMonitor and ActivationMonitor do that.")) },
      { name: "system", label: "System", make: () => this.charts("system", "The machine is not watched. SystemStats does that.") },
      { name: "checkpoints", label: "Checkpoints", make: () => lists.checkpoints },
      { name: "console", label: "Console", make: () => (this.text = new ConsoleView(this.id)).element },
      { name: "callbacks", label: "Callbacks", make: () => lists.callbacks },
      { name: "history", label: "History", make: () => lists.history },
      { name: "about", label: "About", make: about },
    ], (name) => {
      history.replaceState(null, "", `#/run/${this.id}/${name}`);
      this.openTab(name);
    });
    this.element.replaceChildren(head, this.banner, this.controls.element, this.tabs.list, this.tabs.panel);
    this.openTab(tab);
    this.title.focus({ preventScroll: true });
  }

  private openTab(name: string): void {
    this.tabs.show(name);
    if (name === "console") this.text?.refresh();
    if (name === "media") this.media?.refresh();
    const tools = this.tools.find((one) => this.tabs.panel.contains(one.element));
    viewKeys([
      ...(tools?.keys ?? []),
      { key: "]", what: "the next part of the run", run: () => this.tabs.next(1) },
      { key: "[", what: "the part before", run: () => this.tabs.next(-1) },
      { key: "s", what: "stop the training", run: () => this.controls.open("stop") },
      { key: "p", what: "pause it, or go on", run: () => this.controls.open(this.run?.state === "paused" ? "continue" : "pause") },
      { key: "u", what: "back to all runs", run: () => (location.hash = "#/") },
    ]);
  }

  private charts(room: Room, empty: string): HTMLElement {
    const grid = new ChartGrid(this.settings, empty);
    const tools = chartTools(grid, this.settings);
    this.grids.set(room, grid);
    this.tools.push(tools);
    if (this.run) grid.add(runPlans(this.run, this.line, room));
    return h("div", {}, tools.element, grid.element);
  }

  private async load(): Promise<void> {
    try {
      const fresh = await api.run(this.id);
      if (this.closed) return;
      const known = new Map(this.run?.curves.map((head) => [head.name, head]));
      fresh.curves = fresh.curves.map((head) => Object.assign(known.get(head.name) ?? head, head)); // charts keep theirs
      const again = newestAttempt(fresh) !== newestAttempt(this.run);
      this.run = fresh;
      this.show(again);
    } catch (error) {
      if (error instanceof ApiError && (error.status === 404 || error.status === 401)) renew(this.banner, error.message, () => [failed(error, "This run can no longer be read.")]);
    }
  }

  private show(again = false): void {
    const { run, lists } = this;
    if (!run) return;
    Object.assign(this.line, timeline(run));
    say(this.title, run.name);
    document.title = `${run.name} · Epochal`;
    this.state.replaceChildren(statePill(run.state));
    this.controls.update(run.commands, run.state);
    this.notes.update(run);
    renew(this.rank, run.ranks, () => this.ranks(run));
    for (const [room, grid] of this.grids) grid.add(runPlans(run, this.line, room), again);
    renew(lists.checkpoints, run.checkpoints, () => [checkpointTable(run.checkpoints)]);
    renew(lists.callbacks, run.callbacks, () => [callbackTable(run.callbacks)]);
    renew(lists.params, run.params, () => [facts("Parameters", run.params, "This run logged no parameters. run.log_params(mapping) does.")]);
    renew(lists.about, run.about, () => [facts("Environment", run.about, "Nothing is known of where this run ran.")]);
    const finals = run.curves.filter((head) => head.kind === "final");
    renew(this.finals, finals, () => finals.map(tile));
    const layers = run.curves.filter((head) => roomOf(head) === "layers");
    this.bars.update(layers);
    this.tabs.count("layers", layers.length || null);
    this.tabs.count("system", run.curves.some((head) => roomOf(head) === "system") ? 0 : null);
    this.tabs.count("checkpoints", run.checkpoints.length);
    this.tellProgress();
    this.warn(run);
  }

  /** Which rank's file is shown, where there are several. */
  private ranks({ ranks }: Run): Node[] {
    if (ranks.length < 2) return [];
    const pick = h("select", {}, ...ranks.map(({ id, rank }) => h("option", { value: id, selected: id === this.id }, String(rank))));
    pick.addEventListener("change", () => (location.hash = `#/run/${pick.value}/${this.tabs.current}`));
    return [document.createTextNode("Rank"), pick];
  }

  private tellProgress(): void {
    const { run } = this;
    const session = run?.sessions.at(-1);
    if (!run || !session) return;
    const about = session.about as { epochs?: number | null; trainer?: string };
    const epochs = run.epochs.at(-1);
    const step = Math.max(0, ...run.curves.filter((head) => head.kind !== "layers").map((head) => head.step ?? 0));
    const planned = about.epochs ?? null;
    const done = epochs ? epochs.epoch + 1 : 0;
    const ended = session.ended ?? (isOver(run.state) ? session.beat : Date.now() / 1000);
    const parts = [
      planned ? `${done} of ${planned} epochs` : `${done} epochs`, `step ${whole(step)}`, duration(ended - session.started),
      about.trainer ?? "", run.sessions.length > 1 ? `session ${run.sessions.length}` : "", `began ${moment(run.sessions[0]?.started)}`,
    ];
    say(this.where, parts.filter(Boolean).join(" · "));
    this.bar.hidden = !planned;
    if (planned) this.bar.value = Math.min(1, done / planned);
  }

  private warn(run: Run): void {
    const session = run.sessions.at(-1);
    const lines: HTMLElement[] = [];
    if (session?.error) lines.push(h("p", { class: "banner bad" }, `It failed: ${session.error}`));
    else if (run.state === "crashed") lines.push(h("p", { class: "banner bad" }, `It ended without a word, last heard of ${moment(session?.beat)}. Its process was killed, or its machine went down.`));
    if (session?.stop_reason && isOver(run.state)) lines.push(h("p", { class: "banner" }, `Stopped: ${session.stop_reason}`));
    if (run.losses.length > 0) {
      const told = run.losses.map((loss) => `${whole(loss.count)} ${loss.what} (${loss.why})`).join("; ");
      lines.push(h("p", { class: "banner warn" }, `Some of it could not be kept: ${told}`));
    }
    renew(this.banner, lines.map((line) => line.textContent), () => lines);
  }

  private pulse(pulse: Pulse): void {
    const { run } = this;
    if (!run || pulse.id !== this.id) return;
    for (const grid of this.grids.values()) grid.pulse(pulse);
    if (pulse.ask) void newsOf(pulse.id).ask();
    const known = new Set(run.curves.map((head) => head.name));
    const epoch = run.epochs.at(-1)?.epoch ?? -1;
    const changed = pulse.state !== run.state;
    if (changed) {
      run.state = pulse.state;
      this.state.replaceChildren(statePill(pulse.state));
      announce(`${run.name}: ${pulse.state}`);
    }
    if (changed || (pulse.epoch ?? 0) > epoch + 1 || Object.keys(pulse.newest).some((name) => !known.has(name))) this.reload();
    const isNew = (what: "events" | "audit" | "notes" | "console" | "media" | "attempt"): boolean => pulse[what] !== this.seen[what];
    if (isNew("events") || isNew("audit")) this.askHistory();
    if (isNew("events") || isNew("audit") || isNew("notes") || isNew("attempt")) this.reload();
    if (isNew("console") && this.tabs.current === "console") this.text?.refresh();
    if (isNew("media") && this.tabs.current === "media") this.media?.refresh();
    this.seen = pulse;
    this.tellNewest(pulse, run.curves);
  }

  /** The server was away: what was missed is asked for. */
  private comeBack(): void {
    this.reload();
    this.askHistory();
    this.text?.refresh();
    this.media?.refresh();
  }

  private tellNewest(pulse: Pulse, heads: CurveHead[]): void {
    for (const head of heads) {
      const newest = pulse.newest[head.name];
      if (newest) [head.step, head.value] = [newest[0], newest[2]];
    }
    this.tellProgress();
  }

  private async history(): Promise<void> {
    const [happenings, audit] = await Promise.all([api.events(this.id), api.audit(this.id)]);
    this.settings.set({ happenings });
    this.controls.answered(audit);
    this.lists.history.replaceChildren(h("h2", {}, "Asked by people"), auditTable(audit), h("h2", {}, "What happened"), happeningTable(happenings));
    this.tabs.count("history", audit.length + happenings.length);
  }

  close(): void {
    this.closed = true;
    this.leave?.();
    window.clearInterval(this.clock); // a time-out, too
    this.tools.forEach((tools) => tools.close());
    this.grids.forEach((grid) => grid.close());
    viewKeys([]);
  }
}

function tile(head: CurveHead): HTMLElement {
  const best = bestOf(head);
  return h("div", { class: "tile" }, h("span", { class: "muted" }, head.name), h("b", {}, number(head.value ?? best?.value)));
}

