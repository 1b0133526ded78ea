/** Draw what changed in the next frame, each thing once; what would make a frame late is drawn in the one after. */

const BUDGET = 3; // milliseconds of script a frame: painting what was drawn takes some times as long
const waiting = new Set<() => void>();
let asked = false;

function frame(): void {
  const begin = performance.now();
  for (const draw of [...waiting]) {
    waiting.delete(draw);
    draw();
    if (performance.now() - begin > BUDGET) break;
  }
  asked = waiting.size > 0;
  if (asked) requestAnimationFrame(frame);
}

export function nextFrame(draw: () => void): void {
  waiting.add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(frame);
}
