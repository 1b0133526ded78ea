/** One curve of one run as it grows: loaded once, then only its end is asked for, and only where points are missing. */

import { api } from "./api.js";
import { add, columns, cut, none, place, type Columns } from "./columns.js";
import { newsOf } from "./news.js";
import { inTurn } from "./queue.js";
import type { CurveData, Newest } from "./types.js";

const MOST = 2000; // points or ranges, more than a chart has pixels

/** An earlier attempt, from the step on that a later one repeats. */
export interface Past {
  attempt: number;
  begin: number;
}

export class LiveCurve {
  points: Columns = none();
  alive = false; // somebody sees it
  private sure = 0; // points in front of which none is missing; those behind came ahead of the others, with the stream
  private last = 0; // their last step, to which the store may have added more
  private count = 0; // points that the store has of those, ranges counted by what is in them
  private told: Newest | null = null;
  private loaded = false;
  private turn = 0; // no answer is taken that a newer question has overtaken

  constructor(
    readonly id: string,
    readonly name: string,
    private readonly changed: () => void,
    private readonly past?: Past,
  ) {}

  /** Whether nothing is missing, as far as was told. */
  get complete(): boolean {
    return this.loaded && this.sure === this.points.step.length && (this.told?.[3] ?? 0) <= this.count;
  }

  /** Whether it may be asked for news: not while the whole of it is on its way, which that would overtake. */
  get waits(): boolean {
    return this.alive && this.loaded;
  }

  async load(): Promise<void> {
    const turn = (this.turn += 1);
    this.loaded = false;
    const data = await inTurn(() => api.curve(this.id, this.name, { most: MOST, ...this.past }));
    if (turn !== this.turn) return;
    this.points = none();
    this.sure = 0;
    this.last = 0;
    this.loaded = true;
    this.take(data);
  }

  /** The newest value, told by the stream: drawn at once; what came before it is asked for a little later. */
  pulse(newest: Newest): void {
    if (this.past) return;
    const [step, , , count] = (this.told = newest);
    if (!this.loaded) return;
    if (step < (this.points.step.at(-1) ?? -1) || count < this.count) return this.again(); // steps are repeated
    this.follow(newest);
    this.changed();
  }

  /** Draw the newest value, and ask for those before it where some are missing. */
  private follow([step, time, value, count]: Newest): void {
    const further = step > (this.points.step.at(-1) ?? -1); // a step may have several points: then its others are missing
    const missing = this.sure < this.points.step.length || count > this.count + (further ? 1 : 0);
    if (further) add(this.points, { step: [step], time: [time], low: [value], high: [value] });
    if (this.points.step.length > 2 * MOST) this.again();
    else if (missing) newsOf(this.id).want(this);
    else [this.sure, this.last, this.count] = [this.points.step.length, step, Math.max(count, this.count)];
  }

  private again(): void {
    void this.load().catch(() => {
      this.loaded = true;
      newsOf(this.id).want(this);
    });
  }

  /** Between which steps its points are wanted, and how to take them; all pages were told the same, and ask the same. */
  ask(): { begin: number; end: number; take: (data: CurveData | null) => void } {
    const turn = (this.turn += 1);
    const [last = 0, , , count = 0] = this.told ?? [];
    const take = (data: CurveData | null): void => {
      if (turn === this.turn && data) this.take(data.last > last ? { ...data, last, count } : data); // the store has gone on
    };
    return { begin: this.last, end: last, take };
  }

  private take(data: CurveData): void {
    cut(this.points, place(this.points.step, this.last - 1) + 1);
    add(this.points, columns(data));
    this.sure = this.points.step.length;
    this.last = Math.max(data.last, 0);
    this.count = data.count;
    if (this.told && this.told[3] > data.count) this.follow(this.told); // told while the answer was on its way
    this.changed();
  }

  close(): void {
    this.alive = false;
    this.turn += 1;
  }

  /** A part of it, finer. */
  async part(begin: number, end: number): Promise<Columns> {
    const asked = { most: MOST, end, attempt: this.past?.attempt, begin: Math.max(begin, this.past?.begin ?? 0) };
    return columns(await inTurn(() => api.curve(this.id, this.name, asked)));
  }
}
