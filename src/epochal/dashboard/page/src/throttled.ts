/** Calls that do not come too often. */

/** Call at most every so many milliseconds, and once more after the last wish; one call at a time. */
export function throttled(call: () => Promise<void> | void, pause: number | (() => number)): () => void {
  let waiting = false;
  let busy = false;
  let last = -Infinity;
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
    const milliseconds = typeof pause === "number" ? pause : pause();
    window.setTimeout(() => void go(), Math.max(0, last + milliseconds - performance.now()));
  };
  return () => {
    if (waiting) return;
    waiting = true;
    if (!busy) later();
  };
}
