/** Tables of what a run is and did. */

import { h } from "./dom.js";
import { duration, moment, nth, number, plain, size, whole } from "./format.js";
import type { AuditRow, CallbackRow, CheckpointRow, Happening } from "./types.js";

export type Cell = string | Node | null;

export function table(label: string, heads: string[], rows: Cell[][], empty: string): HTMLElement {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  const head = h("tr", {}, ...heads.map((one) => h("th", { scope: "col" }, one)));
  const body = rows.map((row) => h("tr", {}, ...row.map((cell, at) => h("td", { "data-head": heads[at] ?? "" }, cell ?? "–"))));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", { class: "plain" }, h("caption", { class: "sr" }, label), h("thead", {}, head), h("tbody", {}, ...body)));
}

/** Names and values; nested mappings are written with dots. */
export function facts(label: string, of: Record<string, unknown>, empty: string): HTMLElement {
  const list = Object.entries(flat(of));
  if (list.length === 0) return h("p", { class: "empty" }, empty);
  return h("dl", { class: "facts", "aria-label": label }, ...list.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, plain(value))]));
}

export function flat(of: Record<string, unknown>, before = ""): Record<string, unknown> {
  const found = Object.create(null) as Record<string, unknown>; // a parameter may be called constructor
  for (const [name, value] of Object.entries(of)) {
    if (value !== null && typeof value === "object" && !Array.isArray(value)) {
      Object.assign(found, flat(value as Record<string, unknown>, `${before}${name}.`));
    } else found[before + name] = value;
  }
  return found;
}

export function checkpointTable(rows: CheckpointRow[]): HTMLElement {
  const badges = (row: CheckpointRow): Node => h("span", { class: "badges" },
    row.best ? h("span", { class: "badge good" }, "best") : null, row.pinned ? h("span", { class: "badge" }, "pinned") : null);
  const metrics = (row: CheckpointRow): string =>
    Object.entries(row.metrics ?? {}).slice(0, 4).map(([name, value]) => `${name} ${number(value)}`).join("  ·  ");
  return table("Checkpoints", ["Name", "", "Epoch", "Step", "Why", "Measured", "Size"],
    rows.map((row) => [h("code", {}, row.name), badges(row), nth(row.epoch), whole(row.step), row.reason ?? "–", metrics(row) || "–", size(row.size)]),
    "There is no checkpoint yet. A Checkpoint callback makes them, and so does the button Save.");
}

export function callbackTable(rows: CallbackRow[]): HTMLElement {
  const made = table("Callbacks", ["Callback", "With", "Decisions", "Calls", "Time"],
    rows.map((row) => [h("b", {}, row.name), h("code", {}, row.what), whole(row.decisions), whole(row.calls), duration(row.seconds)]),
    "No callback was added to this run.");
  const untold = rows.length > 0 && rows.every((row) => row.calls === null);
  return untold ? h("div", {}, made, h("p", { class: "muted" }, "Calls and time stand here at the end of a training that measures them: Progress(callback_times=True).")) : made;
}

export function auditTable(rows: AuditRow[]): HTMLElement {
  const given = (row: AuditRow): string => Object.entries(row.arguments).map(([name, value]) => `${name} ${plain(value)}`).join(", ");
  const badge = (row: AuditRow): Node => h("span", { class: `badge ${row.state === "applied" ? "good" : row.state === "refused" || row.state === "expired" ? "bad" : ""}` }, row.state);
  return table("What was asked of this training", ["Asked", "What", "With", "By", "", "Step", "Answer", "After"],
    [...rows].reverse().map((row) => [moment(row.asked), h("b", {}, row.name.replaceAll("_", " ")), given(row) || "–", row.by, badge(row), whole(row.step), row.answer ?? "–",
      row.answered === null ? "–" : duration(row.answered - row.asked)]),
    "Nobody has asked anything of this training.");
}

export function happeningTable(rows: Happening[]): HTMLElement {
  return table("What happened", ["When", "What", "Step", "Epoch", "By", ""],
    [...rows].reverse().slice(0, 500).map((row) => [moment(row.time), h("span", { class: `badge mark-${row.kind.replace(/\W/g, "")}` }, row.kind), whole(row.step), nth(row.epoch), row.by, row.text]),
    "Nothing out of the ordinary has happened.");
}
