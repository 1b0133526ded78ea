/** The page: which view the address asks for, what stands around it. */

import { CompareView } from "./compare_page.js";
import { h, iconButton, say, svg } from "./dom.js";
import { alwaysKeys, showHelp, startKeys } from "./keys.js";
import { RunView } from "./run_page.js";
import { RunsView } from "./runs_page.js";
import { nextTheme, themeSwitch } from "./theme.js";
import { startToasts } from "./toast.js";
import type { View } from "./view.js";

const main = h("main", { id: "main", tabindex: -1 });
const live = h("span", { class: "live", role: "status" });
let view: View | null = null;
let address = "";

function connection(alive: boolean): void {
  live.classList.toggle("away", !alive);
  say(live, alive ? "live" : "server away");
}

function open(): void {
  const [room = "", what = "", part = ""] = location.hash.replace(/^#\/?/, "").split("/");
  const asked = `${room}/${what}`;
  if (asked === address) return;
  address = asked;
  view?.close();
  if (room === "run" && what) view = new RunView(what, part || "charts", connection);
  else if (room === "compare" && what) view = new CompareView(what.split(",").filter(Boolean), connection);
  else view = new RunsView(connection);
  main.replaceChildren(view.element);
  window.scrollTo(0, 0);
}

const mark = svg("svg", { viewBox: "0 0 32 32", class: "mark", "aria-hidden": "true" },
  svg("rect", { width: 32, height: 32, rx: 8 }), svg("path", { d: "M6 8c3 0 3 14 8 14 4 0 3-6 6-6 2.500 0 3 3 6 3" }));
const theme = h("button", { type: "button", class: "icon-button" });
themeSwitch(theme);
document.body.append(
  h("header", { class: "top" }, h("a", { href: "#/", class: "brand" }, mark, "Epochal"), live,
    h("div", { class: "top-tools" }, theme, iconButton("help", "Keys (?)", showHelp))),
  main,
);
startToasts();
startKeys();
alwaysKeys([
  { key: "t", what: "colours: as the system, light, dark", run: nextTheme },
  { key: "?", what: "this help", run: showHelp },
]);
window.addEventListener("hashchange", open);
open();
