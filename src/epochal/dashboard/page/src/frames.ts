/**
 * Draw what changed in the next frame, each thing once. Painting what was drawn takes longer than drawing it, and no
 * script can see how long: so frames that come late make for fewer drawings in each, and frames in time for more.
 */

const USUAL = 16; // milliseconds between two frames
const LATE = 1.2; // times as long as usual
const LEAST = 0.5; // drawings a frame: one in every second
const MOST = 24;
const TOGETHER = 5; // a frame in which something is drawn costs much for itself: so some are drawn in it, and none in others
const BUDGET = 6; // milliseconds of script a frame

const waiting = new Set<() => void>();
let asked = false;
let share = 4; // drawings a frame
let credit = 0;
let usual = USUAL;
let last = 0;

/** Take the time of a frame into account; where not even the fewest drawings help, frames are that slow here. */
function learn(took: number): void {
  if (took <= usual * LATE) {
    share = Math.min(MOST, share + 0.25);
    usual = Math.max(USUAL, Math.min(usual, took));
  } else if (share > LEAST) share = Math.max(LEAST, share * 0.75);
  else usual += (took - usual) * 0.1;
}

function frame(now: number): void {
  if (last > 0) learn(now - last);
  credit = Math.min(MOST, credit + share);
  const begin = performance.now();
  const enough = credit >= Math.min(TOGETHER, waiting.size);
  for (const draw of enough ? [...waiting] : []) {
    if (credit < 1 || performance.now() - begin > BUDGET) break;
    credit -= 1;
    waiting.delete(draw);
    draw();
  }
  asked = waiting.size > 0;
  last = asked ? now : 0;
  if (asked) requestAnimationFrame(frame);
  else credit = 0;
}

export function nextFrame(draw: () => void): void {
  waiting.add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(frame);
}
