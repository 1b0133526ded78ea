/** What is new of a run's curves, asked for together when the server says so, which it says to all pages at once. */

import { api, ApiError } from "./api.js";
import type { LiveCurve } from "./live_curve.js";

const MOST = 40; // curves of one request
const PATIENCE = 12_000; // milliseconds without a word from the server, which is longer than it ever waits

class News {
  private readonly due = new Set<LiveCurve>();
  private busy = false;
  private clock = 0;

  constructor(private readonly id: string) {}

  /** Ask for a curve the next time; the last word of a training that ends may have been said already. */
  want(curve: LiveCurve): void {
    this.due.add(curve);
    this.clock ||= window.setTimeout(() => void this.ask(), PATIENCE);
  }

  /** Ask, unless an answer is still awaited: then the next time. */
  async ask(): Promise<void> {
    if (this.busy) return;
    const curves = [...this.due].filter((curve) => curve.waits);
    this.due.clear();
    this.busy = true;
    let at = 0;
    try {
      for (; at < curves.length; at += MOST) await this.fetch(curves.slice(at, at + MOST));
    } catch (error) {
      if (!(error instanceof ApiError && error.status === 404)) curves.slice(at).forEach((curve) => this.due.add(curve));
    } finally {
      this.busy = false;
      window.clearTimeout(this.clock);
      this.clock = this.due.size > 0 ? window.setTimeout(() => void this.ask(), PATIENCE) : 0;
    }
  }

  private async fetch(curves: LiveCurve[]): Promise<void> {
    const asked = curves.map((curve) => ({ name: curve.name, ...curve.ask() }));
    const found = await api.curves(this.id, asked);
    asked.forEach(({ take }, at) => take(found[at] ?? null));
  }
}

const known = new Map<string, News>();

/** What asks for a run's news: one for all charts. */
export function newsOf(id: string): News {
  const news = known.get(id) ?? new News(id);
  known.set(id, news);
  return news;
}
