/** A few requests at a time: a page of twenty charts must not starve the one that somebody looks at. */

const MOST = 4;
const waiting: (() => void)[] = [];
let busy = 0;

export async function inTurn<T>(ask: () => Promise<T>): Promise<T> {
  if (busy >= MOST) await new Promise<void>((go) => waiting.push(go));
  busy += 1;
  try {
    return await ask();
  } finally {
    busy -= 1;
    waiting.shift()?.();
  }
}
