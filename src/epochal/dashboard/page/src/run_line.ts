/** One run's line in the list; only the cells that changed are made again. */

import { h } from "./dom.js";
import type { Column } from "./runs_columns.js";
import type { RunRow } from "./types.js";

export class RunLine {
  readonly element: HTMLTableRowElement;
  private readonly box: HTMLInputElement;
  private readonly cells: HTMLTableCellElement[];
  private made = "";

  constructor(private run: RunRow, private readonly columns: Column[], chosen: (on: boolean) => void) {
    this.box = h("input", { type: "checkbox", "aria-label": `Choose ${run.name} for a comparison` });
    this.box.addEventListener("change", () => chosen(this.box.checked));
    this.cells = columns.map((column) => h("td", { class: `col-${column.key}`, "data-head": column.label }));
    this.element = h("tr", {}, h("td", { class: "choose" }, this.box), ...this.cells);
    this.element.addEventListener("click", (event) => {
      if (event.target instanceof Element && !event.target.closest("a, input, .choose")) location.hash = `#/run/${this.run.id}`;
    });
  }

  update(run: RunRow): void {
    const made = JSON.stringify(run);
    if (made === this.made) return;
    this.made = made;
    this.run = run;
    const focused = this.element.contains(document.activeElement) && document.activeElement !== this.box;
    this.columns.forEach((column, at) => this.cells[at]?.replaceChildren(...column.cell(run)));
    if (focused) this.focus();
  }

  /** Time went on. */
  tick(): void {
    this.columns.forEach((column, at) => {
      if (column.key === "started" || column.key === "duration") this.cells[at]?.replaceChildren(...column.cell(this.run));
    });
  }

  choose(on: boolean): void {
    this.box.checked = on;
    this.element.classList.toggle("chosen", on);
  }

  focus(): void {
    this.element.querySelector<HTMLElement>("a.run-link")?.focus();
    this.element.scrollIntoView({ block: "nearest" });
  }
}
