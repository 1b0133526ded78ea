/** A terminal's text as lines: colours, carriage returns, backspaces, erasing and going up, as progress bars need. */

export interface Look {
  colour: string | null; // a class, c0 ... c15, or #rrggbb
  ground: string | null;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
}

const PLAIN: Look = { colour: null, ground: null, bold: false, dim: false, italic: false, underline: false };

interface Cell {
  text: string;
  look: Look;
}

export interface Run {
  text: string;
  look: Look;
}

// A sequence of ours, one of another kind (a title, a link), or one character.
const TOKEN = /\x1b\[([0-9;?]*)([A-Za-z])|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|\x1b.|[\s\S]/gu;
const UNFINISHED = /\x1b(?:\[[0-9;?]*|\][^\x07\x1b]*)?$/;

export class Terminal {
  readonly lines: Cell[][] = [[]];
  dropped = 0; // lines that were forgotten, at the top
  firstChanged = 0; // the first line that is not as it was drawn
  private row = 0;
  private column = 0;
  private look = PLAIN;
  private rest = "";

  constructor(private readonly most = 5000) {}

  write(text: string): void {
    const all = this.rest + text;
    this.rest = UNFINISHED.exec(all)?.[0] ?? "";
    this.firstChanged = Math.min(this.firstChanged, this.row);
    for (const token of all.slice(0, all.length - this.rest.length).matchAll(TOKEN)) {
      if (token[2]) this.control(token[1] ?? "", token[2]);
      else if (!token[0].startsWith("\x1b")) this.character(token[0]);
    }
    const extra = this.lines.length - this.most;
    if (extra > 0) {
      this.lines.splice(0, extra);
      this.dropped += extra;
      this.row -= extra;
      this.firstChanged = Math.max(0, this.firstChanged - extra);
    }
  }

  private character(one: string): void {
    if (one === "\n") {
      this.row += 1;
      this.column = 0;
      if (this.row === this.lines.length) this.lines.push([]);
    } else if (one === "\r") this.column = 0;
    else if (one === "\b") this.column = Math.max(0, this.column - 1);
    else if (one === "\t") for (let at = 0; at < 8 - (this.column % 8); at += 1) this.put(" ");
    else if (one >= " ") this.put(one);
  }

  private put(text: string): void {
    const line = this.lines[this.row] ?? [];
    while (line.length < this.column) line.push({ text: " ", look: PLAIN });
    line[this.column] = { text, look: this.look };
    this.column += 1;
  }

  private control(numbers: string, letter: string): void {
    const count = Math.max(1, Number.parseInt(numbers, 10) || 1);
    const line = this.lines[this.row] ?? [];
    if (letter === "m") this.look = looked(this.look, numbers.split(";").map((part) => Number(part || 0)));
    else if (letter === "K") this.erase(line, numbers);
    else if (letter === "A") this.go(this.row - count);
    else if (letter === "F") [this.column] = [0, this.go(this.row - count)];
    else if (letter === "B") this.go(this.row + count);
    else if (letter === "C") this.column += Math.min(count, 1000);
    else if (letter === "D") this.column = Math.max(0, this.column - count);
    else if (letter === "G") this.column = Math.min(count, 1000) - 1;
    else if (letter === "J" && numbers !== "1") this.lines.length = this.row + 1;
  }

  private erase(line: Cell[], numbers: string): void {
    if (numbers === "2") line.length = 0;
    else if (numbers === "1") line.fill({ text: " ", look: PLAIN }, 0, this.column + 1);
    else line.length = Math.min(line.length, this.column);
  }

  private go(row: number): void {
    this.row = Math.min(this.lines.length - 1, Math.max(0, row));
    this.firstChanged = Math.min(this.firstChanged, this.row);
  }

  /** A line as stretches of one look. */
  runs(line: number): Run[] {
    const found: Run[] = [];
    for (const cell of this.lines[line] ?? []) {
      const last = found.at(-1);
      if (last && last.look === cell.look) last.text += cell.text;
      else found.push({ text: cell.text, look: cell.look });
    }
    return found;
  }
}

function looked(look: Look, codes: number[]): Look {
  let now = { ...look };
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0;
    if (code === 0) now = { ...PLAIN };
    else if (code === 1) now.bold = true;
    else if (code === 2) now.dim = true;
    else if (code === 3) now.italic = true;
    else if (code === 4) now.underline = true;
    else if (code === 22) now.bold = now.dim = false;
    else if (code === 23) now.italic = false;
    else if (code === 24) now.underline = false;
    else if (code >= 30 && code <= 37) now.colour = `c${code - 30}`;
    else if (code >= 90 && code <= 97) now.colour = `c${code - 82}`;
    else if (code === 39) now.colour = null;
    else if (code >= 40 && code <= 47) now.ground = `c${code - 40}`;
    else if (code >= 100 && code <= 107) now.ground = `c${code - 92}`;
    else if (code === 49) now.ground = null;
    else if (code === 38 || code === 48) {
      const [value, used] = wideColour(codes.slice(at + 1));
      if (code === 38) now.colour = value;
      else now.ground = value;
      at += used;
    }
  }
  return now;
}

/** The colour of 38;5;n or 38;2;r;g;b, and how many numbers it took. */
function wideColour(codes: number[]): [string | null, number] {
  const hex = (...parts: number[]): string => `#${parts.map((part) => Math.min(255, part || 0).toString(16).padStart(2, "0")).join("")}`;
  if (codes[0] === 2) return [hex(codes[1] ?? 0, codes[2] ?? 0, codes[3] ?? 0), 4];
  const index = codes[1] ?? 0;
  if (index < 16) return [`c${index}`, 2];
  if (index > 231) return [hex(...Array<number>(3).fill(8 + (index - 232) * 10)), 2];
  const level = (part: number): number => (part === 0 ? 0 : 55 + part * 40);
  const cube = index - 16;
  return [hex(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6)), 2];
}
