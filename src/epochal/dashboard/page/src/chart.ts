/** A card with one chart: its name, its values under the cursor, its lines; it loads when it is first seen. */

import { along, spoken, type Timeline } from "./axis.js";
import { middle, nearest, place, type Columns } from "./columns.js";
import { h, iconButton, say } from "./dom.js";
import { saveCsv, savePng } from "./export.js";
import { number, whole } from "./format.js";
import { nextFrame } from "./frames.js";
import { LiveCurve, type Past } from "./live_curve.js";
import { drawDots, drawHappenings, drawMissing, type Dot } from "./marks.js";
import { colour } from "./palette.js";
import { Plot, type Form, type Line } from "./plot.js";
import type { Settings, Zoom } from "./settings.js";
import { throttled } from "./throttled.js";
import { onTheme } from "./theme.js";
import { announce } from "./toast.js";
import type { CurveHead, Pulse } from "./types.js";

const OFTEN = 250; // milliseconds between two drawings of a curve that grows

export interface Source {
  id: string;
  curve: string;
  label: string;
  colour: number;
  quiet: boolean;
  timeline: Timeline;
  head: CurveHead;
  past?: Past;
}

interface Trace {
  source: Source;
  live: LiveCurve;
  detail: Columns | null;
  value: HTMLElement;
}

export class Chart {
  readonly element: HTMLElement;
  private readonly body = h("div", { class: "plot", tabindex: 0, role: "img" });
  private readonly note = h("p", { class: "chart-note" });
  private readonly best = h("span", { class: "chart-best" });
  private readonly where = h("span", { class: "chart-where" });
  private readonly values = h("footer", {});
  private traces: Trace[] = [];
  private readonly plot: Plot;
  private readonly undo: (() => void)[] = [];
  private lines: Line[] = [];
  private cursor: number | null = null;
  private read = 0; // the point that the keys have come to: several may lie at the cursor
  private zoomed: Zoom = null;
  private compared = false;
  private shown = false;
  private started = false;
  private readonly draw = (): void => this.drawNow();
  private readonly grown = throttled(() => this.redraw(this.plot.canvas === null), OFTEN);
  private readonly summarise = throttled(() => this.body.setAttribute("aria-label", this.summary()), 1000);

  constructor(
    readonly title: string,
    sources: Source[],
    private readonly settings: Settings,
  ) {
    this.take(sources);
    this.plot = new Plot(this.body, {
      over: (plot) => this.over(plot),
      cursor: (x) => this.moved(x),
      zoom: (range) => this.settings.set({ zoom: range }),
    });
    this.element = h("article", { class: "chart", "aria-label": title }, this.head(), this.body, this.note, this.values);
    this.body.addEventListener("keydown", (event) => this.key(event));
    this.tell();
  }

  private head(): HTMLElement {
    const wide = iconButton("wide", `Show ${this.title} large`, () => {
      wide.setAttribute("aria-pressed", String(this.element.classList.toggle("large")));
      this.redraw();
    });
    const png = iconButton("image", `Save ${this.title} as PNG`, () => savePng(this.title, this.plot.canvas, this.legend()));
    const csv = iconButton("table", `Save ${this.title} as CSV`, () => saveCsv(this.traces.map((trace) => trace.source)));
    return h("header", {}, h("h3", { title: this.title }, this.title), h("span", { class: "chart-tools" }, wide, png, csv));
  }

  /** Take up the curves that it is to show; those that it has are kept. */
  private take(sources: Source[]): void {
    this.compared = new Set(sources.map((source) => source.id)).size > 1;
    this.traces = sources.map((source) => this.traces.find((trace) => keyOf(trace.source) === keyOf(source)) ?? {
      source,
      live: new LiveCurve(source.id, source.curve, () => this.grown(), source.past),
      detail: null,
      value: h("b", {}),
    });
    this.foot();
  }

  /** Show further curves; or read all of them again, where an attempt has begun that repeats what they show. */
  update(sources: Source[], again: boolean): void {
    const known = new Set(this.traces.map((trace) => keyOf(trace.source)));
    if (!again && sources.every((source) => known.has(keyOf(source)))) return;
    this.take(sources);
    this.started = false;
    this.traces.forEach((trace) => (trace.live.alive = this.shown));
    if (this.shown) void this.load();
  }

  private foot(): void {
    const values = this.traces.map(({ source, value }, at) =>
      h("span", { class: source.quiet ? "value quiet" : "value" }, h("i", { class: `swatch c${source.colour % 8}` }),
        this.traces.length > 1 ? h("span", { class: "label", title: source.label }, source.label) : null, value,
        at === 0 && !this.compared ? this.best : null),
    );
    this.values.replaceChildren(...values, this.where);
  }

  private legend(): { label: string; colour: string }[] {
    return this.traces.map(({ source }) => ({ label: source.label, colour: colour(source.colour) }));
  }

  /** It came into view: load what was not, draw. */
  show(): void {
    if (this.shown) return;
    this.shown = true;
    const size = new ResizeObserver(([entry]) => {
      this.plot.resize(entry?.contentRect.width ?? 0);
      this.redraw();
    });
    size.observe(this.body);
    this.traces.forEach((trace) => (trace.live.alive = true));
    this.undo.push(() => size.disconnect(), this.settings.listen(() => this.changed()), onTheme(() => this.redraw()));
    if (!this.started) void this.load();
    this.changed();
  }

  /** It left the view: its drawing is given up, its points are kept. */
  hide(): void {
    this.shown = false;
    this.undo.splice(0).forEach((undo) => undo());
    this.started &&= this.traces.every((trace) => trace.live.complete); // else it is loaded again when it is seen
    this.traces.forEach((trace) => trace.live.close());
    this.plot.close();
  }

  pulse(pulse: Pulse): void {
    for (const { source, live } of this.traces) {
      const newest = pulse.newest[source.curve];
      if (source.id !== pulse.id || !newest) continue;
      if (source.past) continue;
      const [step, , value] = newest;
      Object.assign(source.head, { step, value });
      if (value !== null && value < (source.head.low ?? Infinity)) Object.assign(source.head, { low: value, low_step: step });
      if (value !== null && value > (source.head.high ?? -Infinity)) Object.assign(source.head, { high: value, high_step: step });
      if (this.shown) live.pulse(newest);
      else this.started = false;
    }
    if (this.shown && !this.started) void this.load(); // the server was away when it came into view
  }

  private async load(): Promise<void> {
    this.started = true;
    try {
      await Promise.all(this.traces.map((trace) => trace.live.load()));
      say(this.note, "");
      this.redraw();
    } catch (error) {
      this.started = false;
      say(this.note, `This curve could not be read: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  private changed(): void {
    const zoom = this.settings.zoom;
    if (zoom?.join() !== this.zoomed?.join()) {
      this.zoomed = zoom;
      this.traces.forEach((trace) => (trace.detail = null));
      if (zoom) void this.finer(zoom);
    }
    this.redraw();
  }

  /** A part of the curve was asked for: fetch it with as many points as a whole one had. */
  private async finer(zoom: [number, number]): Promise<void> {
    const fetched = this.traces.map(async (trace) => {
      const { points } = trace.live;
      const x = along(points, this.settings.axis, trace.source.timeline);
      const begin = points.step[Math.max(0, place(x, zoom[0]))] ?? 0;
      const end = points.step[Math.min(points.step.length - 1, place(x, zoom[1]) + 1)];
      const part = await trace.live.part(begin, end ?? begin);
      if (this.zoomed === zoom && part.step.length > 1) trace.detail = part;
    });
    await Promise.allSettled(fetched);
    this.redraw();
  }

  private redraw(now = true): void {
    if (this.shown) nextFrame(this.draw, now);
  }

  private drawNow(): void {
    if (!this.shown) return;
    const { axis, log, smoothing, zoom } = this.settings;
    const form: Form = { axis, log, smoothing, zoom, height: this.element.classList.contains("large") ? 420 : 200 };
    this.lines = this.traces.map(({ source, live, detail }) => {
      const points = detail ?? live.points;
      const soft = this.traces.length > 1 && source.head.kind === "batch" && !source.quiet && !this.compared;
      return { points, x: along(points, axis, source.timeline), colour: colour(source.colour), quiet: source.quiet, soft };
    });
    const filled = this.lines.filter((line) => line.x.length > 0);
    if (filled.length > 0) this.plot.draw(filled, form);
    const nothing = log && this.lines.every((line) => line.points.high.every((value) => value === null || value <= 0));
    if (this.started && filled.length > 0) say(this.note, nothing ? "No value is above zero, so a logarithmic scale has nothing to show." : "");
    this.tell();
  }

  private over(plot: Parameters<typeof drawHappenings>[0]): void {
    const { axis, marks, happenings, log } = this.settings;
    const first = this.traces[0];
    if (!first) return;
    if (marks) drawHappenings(plot, happenings, axis, first.source.timeline);
    drawMissing(plot, this.lines.flatMap((line) => line.x.filter((_, at) => line.points.high[at] === null)));
    const dots: Dot[] = [];
    this.traces.forEach(({ source }, at) => {
      const best = bestOf(source.head);
      const line = this.lines[at];
      if (!best || !line || source.quiet || (log && best.value <= 0)) return;
      const x = line.x[nearest(line.points.step, best.step)];
      if (x !== undefined) dots.push({ x, y: best.value, colour: line.colour });
    });
    drawDots(plot, dots);
  }

  private moved(x: number | null): void {
    this.cursor = x;
    this.tell();
  }

  /** Values under the cursor, or the newest ones. */
  private tell(): void {
    this.traces.forEach(({ source, value }, at) => {
      const line = this.lines[at];
      if (this.cursor === null || !line) return say(value, number(source.head.value));
      const near = nearest(line.x, this.cursor);
      const low = line.points.low[near] ?? null;
      const high = line.points.high[near] ?? null;
      say(value, low === high ? number(low) : `${number(low, 3)} … ${number(high, 3)}`);
    });
    const first = this.traces[0]?.source.head;
    const best = first && bestOf(first);
    say(this.best, this.cursor === null && best ? `best ${number(best.value)} at step ${whole(best.step)}` : "");
    say(this.where, this.cursor === null ? "" : `${this.happened()}${spoken(this.cursor, this.settings.axis)}`);
    this.summarise();
  }

  /** What is marked near the cursor, in words. */
  private happened(): string {
    const line = this.lines[0];
    if (!line || this.cursor === null || !this.settings.marks || line.x.length < 2) return "";
    const reach = ((line.x.at(-1) ?? 0) - (line.x[0] ?? 0)) / 80;
    const step = line.points.step[nearest(line.x, this.cursor)] ?? 0;
    const span = ((line.points.step.at(-1) ?? 0) - (line.points.step[0] ?? 0)) / 80;
    const found = this.settings.happenings.find((event) => event.kind !== "save" && Math.abs(event.step - step) <= Math.max(span, 0.5));
    return found && reach > 0 ? `${found.text} · ` : "";
  }

  private summary(): string {
    const said = this.traces.map(({ source }) => {
      const { value, low, high, step } = source.head;
      return `${source.label}: ${number(value)} at step ${whole(step)}, between ${number(low)} and ${number(high)}`;
    });
    return `${said.join("; ")}. Arrow keys read points.`;
  }

  private key(event: KeyboardEvent): void {
    const line = this.lines.find((one) => one.x.length > 0);
    if (!line) return;
    const [from, to] = this.settings.zoom ?? [line.x[0] ?? 0, line.x.at(-1) ?? 1];
    const near = this.cursor === null ? line.x.length - 1 : nearest(line.x, this.cursor);
    const at = this.cursor !== null && line.x[this.read] === line.x[near] ? this.read : near;
    const move: Record<string, number> = { ArrowLeft: at - 1, ArrowRight: at + 1, PageUp: at - 20, PageDown: at + 20, Home: 0, End: line.x.length - 1 };
    const target = move[event.key];
    if (target !== undefined) {
      const next = Math.min(line.x.length - 1, Math.max(0, target));
      this.read = next;
      this.plot.point(line.x[next] ?? 0);
      announce(`${spoken(line.x[next] ?? 0, this.settings.axis)}: ${number(middle(line.points)[next])}`);
    } else if (event.key === "+" || event.key === "-") {
      const share = event.key === "+" ? 0.25 : 1;
      const centre = this.cursor ?? (from + to) / 2;
      this.settings.set({ zoom: [centre - (to - from) * share, centre + (to - from) * share] });
    } else if (event.key === "0" || event.key === "Escape") {
      this.plot.point(null);
      this.settings.set({ zoom: null });
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

const keyOf = (source: Source): string => JSON.stringify([source.id, source.curve, source.past]);

/** The better extreme, where the curve's name tells which that is. */
export function bestOf(head: CurveHead): { value: number; step: number } | null {
  const [value, step] = head.mode === "min" ? [head.low, head.low_step] : head.mode === "max" ? [head.high, head.high_step] : [null, null];
  return value === null || step === null || !Number.isFinite(value) ? null : { value, step };
}
