/** Tags, and notes of people. */

import { api } from "./api.js";
import { h, renew } from "./dom.js";
import { moment } from "./format.js";
import { toast } from "./toast.js";
import type { RunPage } from "./types.js";

export class Notes {
  readonly element = h("section", { class: "notes", "aria-label": "Notes and tags" });
  private readonly tags = h("ul", { class: "tags" });
  private readonly list = h("ol", { class: "note-list" });

  constructor(private readonly id: string, private readonly changed: () => void) {
    const tag = h("input", { type: "text", placeholder: "Add a tag", "aria-label": "Add a tag", maxlength: 60 });
    const text = h("textarea", { rows: 3, placeholder: "What should be remembered of this run?", "aria-label": "A note", maxlength: 10000 });
    const tagForm = h("form", { class: "inline" }, tag, h("button", { type: "submit" }, "Add"));
    const noteForm = h("form", {}, text, h("button", { type: "submit" }, "Add the note"));
    tagForm.addEventListener("submit", (event) => {
      event.preventDefault();
      const name = tag.value.trim();
      if (name) void this.tell(() => api.tags(this.id, [name], []), () => (tag.value = ""));
    });
    noteForm.addEventListener("submit", (event) => {
      event.preventDefault();
      if (text.value.trim()) void this.tell(() => api.note(this.id, text.value.trim()), () => (text.value = ""));
    });
    this.element.append(h("h2", {}, "Tags"), this.tags, tagForm, h("h2", {}, "Notes"), this.list, noteForm);
  }

  update(run: RunPage): void {
    renew(this.tags, run.tags, () => run.tags.map((name) => h("li", {}, name, h("button", {
      type: "button", "aria-label": `Take the tag ${name} off`, onclick: () => void this.tell(() => api.tags(this.id, [], [name]), () => undefined),
    }, "×"))));
    renew(this.list, run.notes, () => run.notes.map((note) => h("li", {}, h("p", {}, note.text), h("small", {}, `${note.by} · ${moment(note.time)}`))));
  }

  private async tell(ask: () => Promise<unknown>, done: () => void): Promise<void> {
    try {
      await ask();
      done();
      this.changed();
    } catch (error) {
      toast(`That was not kept: ${error instanceof Error ? error.message : String(error)}`, "bad");
    }
  }
}
