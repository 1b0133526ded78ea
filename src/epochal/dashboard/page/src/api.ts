/** What is asked of the server. */

import type { AuditRow, ConsoleLine, CurveData, Happening, Medium, Packed, RunPage, RunRow } from "./types.js";

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function failure(response: Response): Promise<ApiError> {
  const said: unknown = await response.json().catch(() => null);
  const text = said && typeof said === "object" && "error" in said ? String(said.error) : response.statusText;
  return new ApiError(response.status, text || `the server answered ${response.status}`);
}

async function get<T>(path: string, query: Record<string, string | number | undefined> = {}): Promise<T> {
  const asked = Object.entries(query).filter(([, value]) => value !== undefined);
  const search = new URLSearchParams(asked.map(([name, value]) => [name, String(value)])).toString();
  let response: Response;
  try {
    response = await fetch(search ? `${path}?${search}` : path, { headers: { Accept: "application/json" } });
  } catch {
    throw new ApiError(0, "the server does not answer");
  }
  if (!response.ok) throw await failure(response);
  return (await response.json()) as T;
}

async function post<T>(path: string, body: unknown): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-Epochal": "1" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new ApiError(0, "the server does not answer");
  }
  if (!response.ok) throw await failure(response);
  return (await response.json().catch(() => ({}))) as T;
}

function unpacked({ points, ...about }: Packed): CurveData {
  const text = atob(points);
  const bytes = Uint8Array.from(text, (one) => one.charCodeAt(0));
  const all = new Float64Array(bytes.buffer);
  const size = all.length / 4;
  const column = (at: number): number[] => Array.from(all.subarray(at * size, (at + 1) * size));
  const finite = (value: number): number | null => (Number.isFinite(value) ? value : null);
  return { ...about, step: column(0), time: column(1), low: column(2).map(finite), high: column(3).map(finite) };
}

const run = (id: string): string => `/api/runs/${encodeURIComponent(id)}`;

export const api = {
  /** The runs; `since`: those that changed behind that version, unless `all` says that it is all of them again. */
  runs: (since?: number) => get<{ runs: RunRow[]; version: number; gone?: string[]; all?: boolean }>("/api/runs", { since }),
  run: (id: string) => get<RunPage>(run(id)),
  curve: async (id: string, name: string, query: { most?: number; begin?: number; end?: number; attempt?: number } = {}) =>
    unpacked(await get<Packed>(`${run(id)}/curve`, { name, packed: 1, ...query })),
  curves: async (id: string, wanted: { name: string; begin: number; end: number }[]) => {
    const query = wanted.flatMap(({ name, begin, end }) => [["name", name], ["begin", String(begin)], ["end", String(end)]]);
    const found = await get<{ curves: (Packed | null)[] }>(`${run(id)}/curves?${new URLSearchParams(query)}`);
    return found.curves.map((curve) => curve && unpacked(curve));
  },
  events: async (id: string) => (await get<{ events: Happening[] }>(`${run(id)}/events`)).events,
  audit: async (id: string) => (await get<{ commands: AuditRow[] }>(`${run(id)}/audit`)).commands,
  console: async (id: string, after?: number) =>
    (await get<{ lines: ConsoleLine[] }>(`${run(id)}/console`, { after })).lines,
  media: async (id: string, kind: string) => (await get<{ media: Medium[] }>(`${run(id)}/media`, { kind })).media,
  medium: (id: string, number: number) => `${run(id)}/media/${number}`,
  medium_json: (id: string, number: number) => get<unknown>(`${run(id)}/media/${number}`),
  csv: (id: string, names: string[]) => `${run(id)}/export.csv?${new URLSearchParams(names.map((name) => ["names", name]))}`,
  command: (id: string, key: string, name: string, args: Record<string, unknown>) =>
    post<{ id: string }>(`${run(id)}/commands`, { id: key, name, arguments: args }),
  note: (id: string, text: string) => post<unknown>(`${run(id)}/notes`, { text }),
  tags: (id: string, add: string[], remove: string[]) => post<unknown>(`${run(id)}/tags`, { add, remove }),
};
