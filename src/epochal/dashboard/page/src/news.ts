/** What is new of a run's curves, asked for together when the server says so, which it says to all pages at once. */

import { api } from "./api.js";
import type { LiveCurve } from "./live_curve.js";

const MOST = 40; // curves of one request

class News {
  private readonly due = new Set<LiveCurve>();
  private busy = false;

  constructor(private readonly id: string) {}

  want(curve: LiveCurve): void {
    this.due.add(curve);
  }

  /** Ask, unless an answer is still awaited: then the next time. */
  async ask(): Promise<void> {
    if (this.busy) return;
    const curves = [...this.due].filter((curve) => curve.alive);
    this.due.clear();
    this.busy = true;
    try {
      for (let at = 0; at < curves.length; at += MOST) await this.fetch(curves.slice(at, at + MOST));
    } catch {
      // the server is away: the stream says so, and the next value tries again
    } finally {
      this.busy = false;
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
