/** The server's events: one connection a page, which reconnects by itself; none while nobody looks at the page. */

import type { Pulse } from "./types.js";

interface Listener {
  runs?: (version: number) => void;
  run?: (pulse: Pulse) => void;
  alive?: (alive: boolean) => void;
}

/** Listen until the returned function is called; `ids`: the runs whose changes are wanted, none: the list. */
export function listen(ids: string[], listener: Listener): () => void {
  const query = ids.map((id) => `run=${encodeURIComponent(id)}`).join("&");
  let source: EventSource | null = null;
  let again = 0;
  const open = (): void => {
    source = new EventSource(`/api/stream${query ? `?${query}&list=0` : ""}`);
    source.addEventListener("open", () => listener.alive?.(true));
    source.addEventListener("error", () => {
      listener.alive?.(false);
      if (source?.readyState === EventSource.CLOSED) again = window.setTimeout(open, 2000);
    });
    source.addEventListener("runs", (event) => {
      listener.runs?.((JSON.parse(event.data as string) as { version: number }).version);
    });
    source.addEventListener("run", (event) => {
      const pulse = JSON.parse(event.data as string) as Pulse;
      pulse.newest = Object.assign(Object.create(null), pulse.newest) as Pulse["newest"]; // a curve may be called constructor
      listener.run?.(pulse);
    });
  };
  const close = (): void => {
    window.clearTimeout(again);
    source?.close();
  };
  const look = (): void => { // browsers have few connections for all tabs of a server
    close();
    if (document.visibilityState === "visible") open();
  };
  look();
  document.addEventListener("visibilitychange", look);
  return () => {
    document.removeEventListener("visibilitychange", look);
    close();
  };
}
