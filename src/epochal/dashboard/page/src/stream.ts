/** The server's events: one connection a page, which reconnects by itself. */

import type { Pulse } from "./types.js";

interface Listener {
  runs?: (version: number) => void;
  run?: (pulse: Pulse) => void;
  alive?: (alive: boolean) => void;
}

/** Listen until the returned function is called; `ids`: the runs whose changes are wanted. */
export function listen(ids: string[], listener: Listener): () => void {
  const query = ids.map((id) => `run=${encodeURIComponent(id)}`).join("&");
  let source: EventSource | null = null;
  let again = 0;
  const open = (): void => {
    source = new EventSource(`/api/stream${query ? `?${query}` : ""}`);
    source.addEventListener("open", () => listener.alive?.(true));
    source.addEventListener("error", () => {
      listener.alive?.(false);
      if (source?.readyState === EventSource.CLOSED) again = window.setTimeout(open, 2000);
    });
    source.addEventListener("runs", (event) => {
      listener.runs?.((JSON.parse(event.data as string) as { version: number }).version);
    });
    source.addEventListener("run", (event) => listener.run?.(JSON.parse(event.data as string) as Pulse));
  };
  open();
  return () => {
    window.clearTimeout(again);
    source?.close();
  };
}

/** Call at most every so many milliseconds, and once more after the last wish. */
export function throttled(call: () => Promise<void> | void, milliseconds: number): () => void {
  let waiting = false;
  let busy = false;
  let last = 0;
  const go = async (): Promise<void> => {
    waiting = false;
    busy = true;
    last = performance.now();
    try {
      await call();
    } finally {
      busy = false;
    }
    if (waiting) later();
  };
  const later = (): void => {
    window.setTimeout(() => void go(), Math.max(0, last + milliseconds - performance.now()));
  };
  return () => {
    if (waiting) return;
    waiting = true;
    if (!busy) later();
  };
}
