/**
 * Draw what changed in the next frame, each thing once. Painting what was drawn takes longer than drawing it, and no
 * script can see how long: so frames that come late make for fewer drawings in each, and frames in time for more. What is
 * seen for the first time, or was asked for by a person, does not wait for that.
 */

const USUAL = 16; // milliseconds between two frames
const LATE = 1.2; // times as long as usual
const LEAST = 0.5; // drawings a frame: one in every second
const MOST = 24;
const FEWER = 0.75; // times as many after a frame that came late
const MORE = 0.03; // drawings a frame, after one in time: so few that one frame in twenty may be late, not one in five
const TOGETHER = 5; // a frame in which something is drawn costs much for itself: so some are drawn in it, and none in others
const BUDGET = 6; // milliseconds of script a frame

const waiting = new Set<() => void>();
const urgent = new Set<() => void>();
let asked = false;
let share = 4; // drawings a frame
let credit = 0;
let usual = USUAL;
let last = 0;

/** Take the time of a frame into account; where not even the fewest drawings help, frames are that slow here. */
function learn(took: number): void {
  if (took <= usual * LATE) {
    share = Math.min(MOST, share + MORE);
    usual = Math.max(USUAL, Math.min(usual, took));
  } else if (share > LEAST) share = Math.max(LEAST, share * FEWER);
  else usual += (took - usual) * 0.1;
}

/** Draw some of these, until so many are drawn or the time is up, and return how many. */
function drawSome(these: Set<() => void>, most: number, until: number): number {
  let count = 0;
  for (const draw of [...these]) {
    if (count >= most || performance.now() > until) break;
    count += 1;
    urgent.delete(draw);
    waiting.delete(draw);
    draw();
  }
  return count;
}

function frame(now: number): void {
  if (last > 0) learn(now - last);
  const until = performance.now() + BUDGET;
  drawSome(urgent, Infinity, until);
  credit = Math.min(MOST, credit + share);
  if (credit >= Math.min(TOGETHER, waiting.size)) credit -= drawSome(waiting, Math.floor(credit), until);
  asked = urgent.size + waiting.size > 0;
  last = asked ? now : 0;
  if (asked) requestAnimationFrame(frame);
  else credit = 0;
}

/** Draw in a frame that comes soon; `now`: in the next one that has time. */
export function nextFrame(draw: () => void, now: boolean): void {
  (now ? urgent : waiting).add(draw);
  if (asked) return;
  asked = true;
  requestAnimationFrame(frame);
}
