/** A dialog: the browser keeps the focus inside it, and Escape closes it. */

import { h, iconButton } from "./dom.js";

export interface Action {
  label: string;
  kind?: "primary" | "danger";
  run: () => void | boolean;
}

let count = 0;

/** Open a dialog with actions below; an action that returns false leaves it open. */
export function dialog(title: string, content: Node[], actions: Action[], wide = false): HTMLDialogElement {
  const id = `dialog-${(count += 1)}`;
  const close = (): void => box.close();
  const buttons = actions.map(({ label, kind, run }) =>
    h("button", {
      type: "button",
      class: kind ?? "",
      onclick: () => {
        if (run() !== false) close();
      },
    }, label),
  );
  const foot = actions.length > 0 && h("footer", {}, h("button", { type: "button", onclick: close }, "Cancel"), ...buttons);
  const head = h("header", {}, h("h2", { id }, title), iconButton("close", "Close", close));
  const box = h("dialog", { "aria-labelledby": id, class: wide ? "wide" : "" }, head, ...content, foot);
  box.addEventListener("close", () => box.remove());
  box.addEventListener("click", (event) => {
    if (event.target === box) close();
  });
  box.addEventListener("keydown", (event) => {
    const typed = event.target instanceof HTMLInputElement;
    if (event.key === "Enter" && typed) buttons.at(-1)?.click();
  });
  document.body.append(box);
  box.showModal();
  return box;
}
