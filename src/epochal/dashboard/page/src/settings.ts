/** How all charts of a page are drawn; who draws listens. */

import type { AxisName } from "./axis.js";
import type { Happening } from "./types.js";

export type Zoom = [number, number] | null;

export class Settings {
  axis: AxisName = "step";
  log = false;
  smoothing = 0;
  marks = true;
  zoom: Zoom = null;
  happenings: Happening[] = [];
  private readonly listeners = new Set<() => void>();

  constructor(private readonly kept: string) {
    try {
      const saved = JSON.parse(localStorage.getItem(kept) ?? "{}") as Partial<Settings>;
      if (saved.axis === "time" || saved.axis === "epoch") this.axis = saved.axis;
      this.log = saved.log === true;
      this.marks = saved.marks !== false;
      if (typeof saved.smoothing === "number") this.smoothing = Math.min(0.99, Math.max(0, saved.smoothing));
    } catch {
      // what was kept cannot be read: begin with what is usual
    }
  }

  set(change: Partial<Pick<Settings, "axis" | "log" | "smoothing" | "marks" | "zoom" | "happenings">>): void {
    if (change.axis && change.axis !== this.axis) this.zoom = null; // another unit
    Object.assign(this, change);
    const { axis, log, smoothing, marks } = this;
    localStorage.setItem(this.kept, JSON.stringify({ axis, log, smoothing, marks }));
    this.listeners.forEach((listener) => listener());
  }

  listen(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
