/** The shapes that the server sends. A number that JSON cannot say, NaN or infinity, is null. */

export type State = "running" | "paused" | "finished" | "stopped" | "failed" | "interrupted" | "preempted" | "crashed";
export type Mode = "min" | "max" | null;

export interface Extremes {
  value: number | null;
  low: number | null;
  low_step: number | null;
  high: number | null;
  high_step: number | null;
  mode?: Mode;
}

export interface RunRow {
  id: string;
  name: string;
  path: string;
  trainer: string | null;
  state: State;
  started: number | null;
  ended: number | null;
  beat: number | null;
  epoch: number | null;
  num_epochs: number | null;
  step: number | null;
  fitness: number | null;
  best_fitness: number | null;
  best: Record<string, Extremes>;
  spark: { name: string; values: (number | null)[] } | null;
  tags: string[];
  control: boolean;
  error?: string; // why it is unreadable
}

export interface CurveHead extends Extremes {
  name: string;
  kind: "batch" | "point" | "epoch" | "final" | "layers" | "system";
  count: number;
  step: number;
}

export interface Session {
  started: number;
  beat: number;
  ended: number | null;
  state: State;
  stop_reason: string | null;
  error: string | null;
  about: Record<string, unknown>;
  [column: string]: unknown;
}

export interface Attempt {
  id: number;
  session: number;
  started: number;
  from_step: number;
  from_epoch: number;
}

export interface EpochSpan {
  epoch: number;
  first_step: number;
  last_step: number;
  started: number;
  ended: number;
}

export interface CheckpointRow {
  name: string;
  epoch: number | null;
  step: number | null;
  reason: string | null;
  metrics: Record<string, number | null> | null;
  size: number | null;
  pinned: boolean;
  best: boolean;
}

export interface Argument {
  name: string;
  type: "number" | "integer" | "text" | "choice";
  minimum?: number | null;
  maximum?: number | null;
  choices?: string[] | null;
  required?: boolean;
  default?: unknown;
}

export interface Offer {
  name: string;
  label: string;
  arguments: Argument[];
  available: boolean;
  why_not: string | null;
}

export interface CallbackRow {
  name: string;
  what: string;
  decisions?: number | null;
  calls?: number | null;
  seconds?: number | null;
}

export interface Note {
  id: number;
  time: number;
  by: string;
  text: string;
}

export interface Loss {
  what: string;
  count: number;
  why: string;
  time: number;
}

export interface RunPage {
  id: string;
  name: string;
  path: string;
  state: State;
  sessions: Session[];
  attempts: Attempt[];
  params: Record<string, unknown>;
  about: Record<string, unknown>;
  callbacks: CallbackRow[];
  curves: CurveHead[];
  epochs: EpochSpan[];
  notes: Note[];
  tags: string[];
  checkpoints: CheckpointRow[];
  commands: Offer[];
  losses: Loss[];
  ranks: { rank: number; id: string }[];
}

export interface CurveData {
  name: string;
  step: number[];
  time: number[];
  low: (number | null)[];
  high: (number | null)[];
  level: number;
  count: number; // points of the whole curve
  last: number; // their last step
}

/** A curve whose columns are base64 of doubles, one behind the other. */
export interface Packed {
  name: string;
  level: number;
  count: number;
  last: number;
  points: string;
}

export interface Happening {
  id: number;
  kind: string;
  step: number;
  epoch: number;
  time: number;
  by: string;
  text: string;
  about: Record<string, unknown>;
}

export interface AuditRow {
  id: string;
  name: string;
  arguments: Record<string, unknown>;
  by: string;
  asked: number;
  state: "queued" | "taken" | "applied" | "refused" | "expired";
  step: number | null;
  epoch: number | null;
  answered: number | null;
  answer: string | null;
}

export interface ConsoleLine {
  id: number;
  time: number;
  text: string;
}

export interface Box {
  box: [number, number, number, number];
  label: string;
  score: number | null;
  true: boolean;
  mask?: Mask;
}

/** Lengths of runs, row by row, off first; size is [height, width]. */
export interface Mask {
  size: [number, number];
  counts: number[];
}

export interface Medium {
  id: number;
  name: string;
  step: number;
  epoch: number;
  time: number;
  about: { width?: number; height?: number; boxes?: Box[] };
}

/** A curve's newest step, time and value, and how many points it has. */
export type Newest = [number, number, number | null, number];

/** What the stream tells of a run that changed. */
export interface Pulse {
  id: string;
  state: State;
  step: number | null;
  epoch: number | null;
  newest: Record<string, Newest>;
  events: number;
  audit: number;
  media: number;
  console: number;
  notes: number;
  attempt: number; // the newest one
  ask: boolean; // now is the time to ask for what is new of the curves
}
