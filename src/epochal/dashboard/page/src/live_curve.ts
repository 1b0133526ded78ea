/** One curve of one run as it grows: loaded once, then only its end is asked for. */

import { api } from "./api.js";
import { add, columns, cut, none, type Columns } from "./columns.js";
import { inTurn } from "./queue.js";

const MOST = 2000; // points or ranges, more than a chart has pixels
const PAUSE = 1000; // milliseconds between two requests for new points

/** An earlier attempt, from the step on that a later one repeats. */
export interface Past {
  attempt: number;
  begin: number;
}

export class LiveCurve {
  points: Columns = none();
  private sure = 0; // points that came from the store; those behind came ahead of it, with the stream
  private loaded = false;
  private asked = 0;
  private timer = 0;

  constructor(
    readonly id: string,
    readonly name: string,
    private readonly changed: () => void,
    private readonly past?: Past,
  ) {}

  async load(): Promise<void> {
    const data = await inTurn(() => api.curve(this.id, this.name, { most: MOST, ...this.past }));
    this.points = columns(data);
    this.sure = this.points.step.length;
    this.loaded = true;
    this.asked = performance.now();
    this.changed();
  }

  /** The newest value, told by the stream: drawn at once; what came before it is asked for a little later. */
  pulse(step: number, time: number, value: number | null): void {
    if (!this.loaded || this.past) return;
    const last = this.points.step.at(-1) ?? -1;
    if (step < last) {
      this.loaded = false; // the run was set back: steps are repeated
      void this.load().catch(() => (this.loaded = true));
      return;
    }
    if (step === last) return;
    add(this.points, { step: [step], time: [time], low: [value], high: [value] });
    this.changed();
    if (!this.timer) {
      const wait = Math.max(0, this.asked + PAUSE - performance.now());
      this.timer = window.setTimeout(() => void this.catchUp(), wait);
    }
  }

  private async catchUp(): Promise<void> {
    this.asked = performance.now();
    try {
      if (this.points.step.length > 2 * MOST) await this.load();
      else await this.more();
    } catch {
      // the server is away: the stream says so, and the next value tries again
    } finally {
      this.timer = 0;
    }
  }

  private async more(): Promise<void> {
    const begin = (this.points.step[this.sure - 1] ?? -1) + 1;
    const data = await inTurn(() => api.curve(this.id, this.name, { most: MOST, begin }));
    const ahead = this.points.step.at(-1) ?? -1;
    if ((data.step.at(-1) ?? -1) < ahead && data.step.length === 0) return;
    cut(this.points, this.sure);
    add(this.points, columns(data));
    this.sure = this.points.step.length;
    this.changed();
  }

  close(): void {
    window.clearTimeout(this.timer);
    this.timer = 0;
  }

  /** A part of it, finer. */
  async part(begin: number, end: number): Promise<Columns> {
    const asked = { most: MOST, end, attempt: this.past?.attempt, begin: Math.max(begin, this.past?.begin ?? 0) };
    return columns(await inTurn(() => api.curve(this.id, this.name, asked)));
  }
}
