/** What the training wrote to its terminal. */

import { Terminal, type Look } from "./ansi.js";
import { api } from "./api.js";
import { h, say } from "./dom.js";
import { toggle } from "./chart_tools.js";
import { throttled } from "./throttled.js";

export class ConsoleView {
  readonly element: HTMLElement;
  private readonly out = h("div", { class: "console", role: "log", "aria-label": "Console", tabindex: 0, "aria-live": "off" });
  private readonly note = h("p", { class: "empty" });
  private readonly terminal = new Terminal();
  private after = 0;
  private follow = true;
  readonly refresh = throttled(() => this.load(), 500);

  constructor(private readonly id: string) {
    const follow = toggle("Follow", true, (on) => {
      this.follow = on;
      if (on) this.bottom();
    });
    this.out.addEventListener("scroll", () => {
      const low = this.out.scrollHeight - this.out.scrollTop - this.out.clientHeight < 40;
      this.follow = low;
      follow.setAttribute("aria-pressed", String(low));
    });
    this.element = h("div", { class: "panel" }, h("div", { class: "tools" }, follow), this.out, this.note);
    this.refresh();
  }

  private async load(): Promise<void> {
    try {
      const lines = await api.console(this.id, this.after || undefined);
      for (const line of lines) this.terminal.write(line.text.endsWith("\n") ? line.text : `${line.text}\n`);
      this.after = lines.at(-1)?.id ?? this.after;
      if (lines.length > 0) this.draw();
      say(this.note, this.after === 0 ? "This run has written nothing to its terminal, or its text was not kept." : "");
      this.out.hidden = this.after === 0;
    } catch (error) {
      say(this.note, `The console could not be read: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  private draw(): void {
    const { terminal, out } = this;
    const kept = Math.max(0, terminal.firstChanged);
    const gone = terminal.dropped - Number(out.dataset["dropped"] ?? 0);
    for (let at = 0; at < gone; at += 1) out.firstChild?.remove();
    out.dataset["dropped"] = String(terminal.dropped);
    while (out.childNodes.length > kept) out.lastChild?.remove();
    for (let line = out.childNodes.length; line < terminal.lines.length; line += 1) {
      const runs = terminal.runs(line).map(({ text, look }) => dressed(h("span", {}, text), look));
      out.append(h("div", {}, ...runs, runs.length === 0 ? "\u200b" : null));
    }
    terminal.firstChanged = terminal.lines.length - 1;
    if (this.follow) this.bottom();
  }

  private bottom(): void {
    this.out.scrollTop = this.out.scrollHeight;
  }
}

function dressed(element: HTMLElement, look: Look): HTMLElement {
  const { colour, ground } = look;
  if (colour?.startsWith("#")) element.style.color = colour;
  else if (colour) element.classList.add(`fg-${colour}`);
  if (ground?.startsWith("#")) element.style.backgroundColor = ground;
  else if (ground) element.classList.add(`bg-${ground}`);
  for (const name of ["bold", "dim", "italic", "underline"] as const) if (look[name]) element.classList.add(name);
  return element;
}
