/** What is new of a run's curves, asked for together: twenty charts are one request a second. */

import { api } from "./api.js";
import type { LiveCurve } from "./live_curve.js";
import { throttled } from "./throttled.js";

const PAUSE = 1000; // milliseconds between two requests
const EACH = 80; // at least, for each page that watches the run: the server is not asked more often, however many they are
const MOST = 40; // curves of one

class News {
  private readonly due = new Set<LiveCurve>();
  private readonly go = throttled(() => this.ask(), () => Math.max(PAUSE, EACH * this.watchers));
  watchers = 1;

  constructor(private readonly id: string) {}

  want(curve: LiveCurve): void {
    this.due.add(curve);
    this.go();
  }

  private async ask(): Promise<void> {
    const curves = [...this.due].filter((curve) => curve.alive);
    const now = curves.slice(0, MOST);
    this.due.clear();
    curves.slice(MOST).forEach((curve) => this.want(curve));
    if (now.length === 0) return;
    const asked = now.map((curve) => ({ name: curve.name, ...curve.ask() }));
    try {
      const found = await api.curves(this.id, asked);
      asked.forEach(({ take }, at) => take(found[at] ?? null));
    } catch {
      // the server is away: the stream says so, and the next value tries again
    }
  }
}

const known = new Map<string, News>();

/** What asks for a run's news: one for all charts. */
export function newsOf(id: string): News {
  const news = known.get(id) ?? new News(id);
  known.set(id, news);
  return news;
}
