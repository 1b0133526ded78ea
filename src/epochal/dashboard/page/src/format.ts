/** Numbers, times and sizes as people read them. */

/** The order of names: layer2 stands before layer10. */
export const byName = new Intl.Collator("en", { numeric: true }).compare;

const WHOLE = new Intl.NumberFormat("en-US");
const PARTS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 8 }); // making one takes longer than a chart

/** 0.000123 -> "1.23e-4"; 1234567 -> "1,234,567"; null -> "–". */
export function number(value: number | null | undefined, digits = 4): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-3) return value.toExponential(Math.max(0, digits - 2)).replace(/\.?0+e/, "e").replace("e+", "e");
  if (Number.isInteger(value)) return WHOLE.format(value);
  return PARTS.format(Number(value.toPrecision(digits)));
}

/** The texts of an axis: of as many digits as tell neighbours apart. */
export function ticksOf(values: number[]): string[] {
  const step = Math.min(...values.slice(1).map((value, at) => Math.abs(value - (values[at] ?? 0))));
  const size = Math.max(...values.map(Math.abs));
  const digits = step > 0 && Number.isFinite(step) ? Math.ceil(Math.log10(size / step)) + 2 : 3;
  return values.map((value) => number(value, Math.min(8, Math.max(3, digits))));
}

export function whole(value: number | null | undefined): string {
  return value === null || value === undefined ? "–" : WHOLE.format(Math.round(value));
}

/** Epochs are counted from 0 and told from 1, as progress bars do. */
export function nth(epoch: number | null | undefined): string {
  return whole(epoch === null || epoch === undefined ? null : epoch + 1);
}

/** 3725 -> "1 h 02 min"; 42 -> "42 s". */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 0.0995) return `${number(seconds * 1000, 2)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 59.5) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${String(minutes % 60).padStart(2, "0")} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** How long ago, in words. */
export function ago(time: number | null | undefined, now = Date.now() / 1000): string {
  if (time === null || time === undefined) return "–";
  const seconds = Math.max(0, now - time);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  if (seconds < 3600) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} d ago`;
}

export function moment(time: number | null | undefined): string {
  if (time === null || time === undefined) return "–";
  const date = new Date(time * 1000);
  const two = (part: number): string => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

export function size(bytes: number | null | undefined): string {
  if (bytes === null || bytes === undefined) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toPrecision(3)} ${units[unit] ?? ""}`;
}

/** A parameter's value on one line. */
export function plain(value: unknown): string {
  if (value === null || value === undefined) return "none";
  if (typeof value === "string") return value;
  if (typeof value === "number") return number(value, 6);
  if (Array.isArray(value) && value.every((one) => typeof one === "string")) return value.join(" ");
  return JSON.stringify(value);
}
