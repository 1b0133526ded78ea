/** Draw what changed in the next frame, each thing once. */

const waiting = new Set<() => void>();
let asked = false;

export function nextFrame(draw: () => void): void {
  waiting.add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    const now = [...waiting];
    waiting.clear();
    now.forEach((one) => one());
  });
}
