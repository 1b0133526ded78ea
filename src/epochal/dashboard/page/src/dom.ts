/** Elements, made in one expression. Text always goes through textContent: what a run says is never read as HTML. */

type Child = Node | string | number | null | undefined | false;
type Props = Record<string, string | number | boolean | null | undefined | ((event: never) => void)>;

function put(element: Element, props: Props, children: Child[]): void {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name.slice(2), value as EventListener);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Make an element; `onclick` and the like are listeners, all else are attributes. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  put(element, props, children);
  return element;
}

/** Make an element of a drawing. */
export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  props: Props = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  put(element, props, children);
  return element;
}

/** Set a text only where it differs, so that nothing is laid out again for nothing. */
export function say(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}

const made = new WeakMap<Element, string>();

/** Make what is in an element anew where it is about something else now: what somebody reads or has selected stays. */
export function renew(element: Element, about: unknown, make: () => Node[]): void {
  const now = JSON.stringify(about) ?? "";
  if (made.get(element) === now) return;
  made.set(element, now);
  element.replaceChildren(...make());
}

const ICONS = {
  moon: "M20 14A8 8 0 1 1 10 4a6.500 6.500 0 0 0 10 10z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M4.900 4.900l1.400 1.400M17.700 17.700l1.400 1.400M2 12h2M20 12h2M4.900 19.100l1.400-1.400M17.700 6.300l1.400-1.400",
  auto: "M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 3v18M12 8h7.500M12 12h9M12 16h7.500",
  help: "M9 9a3 3 0 1 1 4 2.800c-.700.300-1 .900-1 1.700M12 17.500v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  wide: "M4 9V4h5M20 15v5h-5M4 4l6 6M20 20l-6-6",
  image: "M4 5h16v14H4zM4 16l4-4 4 4 3-3 5 5",
  table: "M4 5h16v14H4zM4 10h16M10 5v14",
  log: "M4 4v16h16M4 9h2M4 14h2M8 17c2-9 6-12 12-12",
  stop: "M7 7h10v10H7z",
  pause: "M9 6v12M15 6v12",
  continue: "M8 5l11 7-11 7z",
  save: "M5 4h11l3 3v13H5zM8 4v5h7V4M8 20v-6h8v6",
  validate: "M5 12l5 5L20 6",
  set_lr: "M4 7h16M4 17h16M9 4v6M15 14v6",
  scale_lr: "M4 18L20 6M14 6h6v6",
  command: "M5 7l5 5-5 5M12 18h7",
  close: "M6 6l12 12M18 6L6 18",
} as const;

export type IconName = keyof typeof ICONS;

/** Draw a small sign; it says nothing to a screen reader, its button does. */
export function icon(name: IconName): SVGSVGElement {
  return svg("svg", { viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true" }, svg("path", { d: ICONS[name] }));
}

export function isIcon(name: string): name is IconName {
  return name in ICONS;
}

/** A button with a sign and a name that is read out and shown as its hint. */
export function iconButton(name: IconName, label: string, onclick: (event: MouseEvent) => void): HTMLButtonElement {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick }, icon(name));
}
