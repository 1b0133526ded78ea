/** The buttons that steer a training, and what became of each wish. */

import { api } from "./api.js";
import { dialog } from "./dialog.js";
import { h, icon, isIcon, say } from "./dom.js";
import { whole } from "./format.js";
import type { Argument, AuditRow, Offer, State } from "./types.js";
import { toast } from "./toast.js";

export class Controls {
  readonly element = h("section", { class: "controls", "aria-label": "Control" });
  private readonly buttons = h("div", { class: "buttons", role: "toolbar", "aria-label": "Steer the training" });
  private readonly reason = h("p", { class: "why-not" });
  private readonly answers = h("div", { class: "answers", role: "status", "aria-live": "polite" });
  private readonly waiting = new Map<string, HTMLElement>();
  private made = "";

  constructor(private readonly id: string) {
    this.element.append(this.buttons, this.reason, this.answers);
  }

  update(offers: Offer[], state: State): void {
    const made = JSON.stringify([offers, state]);
    if (made === this.made) return;
    this.made = made;
    const focused = (document.activeElement as HTMLElement | null)?.dataset["command"];
    this.buttons.replaceChildren(...offers.filter((offer) => isShown(offer, state)).map((offer) => this.button(offer)));
    if (focused) this.buttons.querySelector<HTMLElement>(`[data-command="${CSS.escape(focused)}"]`)?.focus();
    const reasons = new Set(offers.filter((offer) => !offer.available).map((offer) => offer.why_not ?? ""));
    const common = reasons.size === 1 && offers.every((offer) => !offer.available) ? [...reasons][0] : "";
    say(this.reason, common ? sentence(common) : "");
    this.reason.hidden = !common;
    this.element.hidden = offers.length === 0;
  }

  private button(offer: Offer): HTMLElement {
    const label = offer.label || offer.name.replaceAll("_", " ");
    const why = offer.available ? null : (offer.why_not ?? "not possible now");
    const button = h("button", {
      type: "button", class: offer.name === "stop" ? "danger" : "", "data-command": offer.name,
      "aria-disabled": why ? "true" : null, title: why, "aria-description": why,
      onclick: () => (why ? toast(`${label}: ${why}`, "bad") : this.ask(offer, label)),
    }, icon(isIcon(offer.name) ? offer.name : "command"), label);
    return button;
  }

  /** Open the dialog of a command by its name, as a key does. */
  open(name: string): void {
    this.buttons.querySelector<HTMLElement>(`[data-command="${CSS.escape(name)}"]`)?.click();
  }

  private ask(offer: Offer, label: string): void {
    if (offer.arguments.length === 0 && offer.name !== "stop") return void this.send(offer, label, {});
    const fields = offer.arguments.map((argument) => new Field(argument));
    const told = offer.name === "stop" ? [h("p", {}, "The training ends at the next safe point; its checkpoints stay.")] : [];
    const first = dialog(label, [...told, ...fields.map((field) => field.element)], [{
      label, kind: offer.name === "stop" ? "danger" : "primary",
      run: () => {
        if (!fields.every((field) => field.isRight())) return false;
        const given = fields.map((field) => [field.argument.name, field.value()] as const);
        void this.send(offer, label, Object.fromEntries(given.filter(([, value]) => value !== undefined)));
        return true;
      },
    }]);
    first.querySelector<HTMLElement>("input:checked, input, select")?.focus();
  }

  private async send(offer: Offer, label: string, args: Record<string, unknown>): Promise<void> {
    const key = newId();
    const line = h("p", { class: "answer waiting" }, h("i", { class: "spinner" }), h("span", {}, `${label}: asked, waiting for the training`));
    this.waiting.set(key, line);
    this.answers.prepend(line);
    while (this.answers.childElementCount > 3) this.answers.lastElementChild?.remove();
    try {
      await api.command(this.id, key, offer.name, args);
    } catch (error) {
      this.answer(key, "refused", `${label}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  /** The audit table changed: tell what became of what was asked here. */
  answered(rows: AuditRow[]): void {
    for (const row of rows) {
      if (!this.waiting.has(row.id) || row.answered === null) continue;
      const where = row.step === null ? "" : ` at step ${whole(row.step)}`;
      this.answer(row.id, row.state, `${row.name.replaceAll("_", " ")}: ${row.state}${where}${row.answer ? ` · ${row.answer}` : ""}`);
    }
  }

  private answer(key: string, state: string, text: string): void {
    const line = this.waiting.get(key);
    this.waiting.delete(key);
    if (!line) return;
    line.className = `answer ${state === "applied" ? "good" : "bad"}`;
    line.replaceChildren(h("span", {}, text), h("button", { type: "button", class: "quiet-button", onclick: () => line.remove() }, "Dismiss"));
  }
}

/** Of pause and continue only the one that makes sense. */
function isShown(offer: Offer, state: State): boolean {
  if (offer.name === "continue") return state === "paused";
  return offer.name !== "pause" || state !== "paused";
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");
}

/** crypto.randomUUID, which needs a secure context; loopback is one. */
function newId(): string {
  return crypto.randomUUID();
}

/** One argument's input, with its bounds. */
class Field {
  readonly element: HTMLElement;
  private readonly input: HTMLInputElement | HTMLSelectElement;
  private readonly wrong = h("span", { class: "wrong", role: "alert" });

  constructor(readonly argument: Argument) {
    const { type, minimum, maximum, choices, required } = argument;
    const start = argument.default ?? (type === "choice" && required ? choices?.[0] : undefined);
    if (type === "choice") {
      const options = (required || start !== undefined ? [] : [""]).concat(choices ?? []);
      this.input = h("select", {}, ...options.map((one) => h("option", { value: one, selected: one === start }, one || "all")));
    } else {
      this.input = h("input", {
        type: type === "text" ? "text" : "number", step: type === "integer" ? 1 : "any", autocomplete: "off",
        ...(type === "text" ? { maxlength: maximum } : { min: minimum, max: maximum }), required: required === true, value: start === undefined || start === null ? "" : String(start),
      });
    }
    const bounds = type === "text" ? "" : [minimum != null ? `from ${minimum}` : "", maximum != null ? `to ${maximum}` : ""].filter(Boolean).join(" ");
    const hint = [bounds, required ? "" : "may be left empty"].filter(Boolean).join("; ");
    this.element = h("label", { class: "field" }, h("span", {}, argument.name.replaceAll("_", " ")), this.input,
      hint && type !== "choice" ? h("small", {}, hint) : null, this.wrong);
  }

  isRight(): boolean {
    const right = this.input.checkValidity();
    say(this.wrong, right ? "" : this.input.validationMessage);
    if (!right) this.input.focus();
    return right;
  }

  value(): unknown {
    const text = this.input.value;
    if (text === "") return undefined;
    return this.argument.type === "number" || this.argument.type === "integer" ? Number(text) : text;
  }
}
