"""What the page reckons, run by Node: smoothing, terminals, axes, sorting; without a browser."""

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hatch_build import PAGE, WORK, PageError, command
from tools.house import ROOT

ESBUILD = WORK / "node_modules" / "esbuild" / "bin" / "esbuild"


@pytest.fixture(scope="module")
def evaluate(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a function that evaluates an expression over the page's modules."""
    if not ESBUILD.is_file():
        pytest.skip("the page was not built here (python hatch_build.py)")
    try:
        node = command("node")
    except PageError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("logic")
    names = ("columns", "ansi", "axis", "format", "runs_columns", "paint", "live_curve", "news")
    text = "".join(f'export * as {name} from "{(PAGE / "src" / name).as_posix()}.ts";\n' for name in names)
    (folder / "all.ts").write_text(text)
    bundled = ["--bundle", "--format=esm", f"--outfile={folder / 'all.mjs'}", "--log-level=error"]
    subprocess.run([*node, str(ESBUILD), str(folder / "all.ts"), *bundled], check=True, timeout=60, cwd=ROOT)

    def run(expression: str, **given: Any) -> Any:
        script = folder / "run.mjs"
        script.write_text(
            f"import * as page from './all.mjs';\nconst {{{', '.join(given)}}} = {json.dumps(given)};\n"
            f"console.log(JSON.stringify(await (async () => {{ {expression} }})()));\n"
        )
        done = subprocess.run([*node, str(script)], check=True, capture_output=True, text=True, timeout=60)
        return json.loads(done.stdout)

    return run


def test_smoothing_is_the_weighted_mean_of_all_that_was(evaluate):
    values, s = [4.0, None, 2.0, 8.0, -1.0], 0.7
    known = [value for value in values if value is not None]
    expected = []
    for count in range(1, len(known) + 1):
        weights = [s ** (count - 1 - at) for at in range(count)]
        expected.append(sum(w * v for w, v in zip(weights, known[:count], strict=True)) / sum(weights))
    found = evaluate("return page.columns.smooth(values, s)", values=values, s=s)
    assert found[1] is None
    assert [one for one in found if one is not None] == pytest.approx(expected)
    assert found[0] == 4.0  # no bias towards zero at the beginning


def terminal(evaluate: Any, *texts: str) -> list[str]:
    """What a terminal shows in the end."""
    return evaluate(
        "const t = new page.ansi.Terminal(); for (const text of texts) t.write(text);"
        "return t.lines.map((_, at) => t.runs(at).map((run) => run.text).join(''))",
        texts=list(texts),
    )


def test_a_progress_bar_stays_on_its_line(evaluate):
    assert terminal(evaluate, "start\n", "10%\r50%\r100% done\r100%\n", "end") == ["start", "100% done", "end"]
    assert terminal(evaluate, "loading\r\x1b[Kok\n") == ["ok", ""]


def test_nested_bars_go_up_and_down(evaluate):
    assert terminal(evaluate, "a 1\nb 1\n\x1b[2Aa 2\n\x1b[1Bend") == ["a 2", "b 1", "end"]


def test_a_sequence_that_is_cut_in_two_is_still_one(evaluate):
    assert terminal(evaluate, "x\x1b[3", "2my\x1b]0;title\x07z") == ["xyz"]


def test_colours_are_looks_and_no_text(evaluate):
    runs = evaluate(
        "const t = new page.ansi.Terminal(); t.write(text); return t.runs(0)",
        text="\x1b[1;31mred\x1b[0m \x1b[38;5;196mx\x1b[38;2;1;2;3my",
    )
    assert [(run["text"], run["look"]["colour"], run["look"]["bold"]) for run in runs] == [
        ("red", "c1", True), (" ", None, False), ("x", "#ff0000", False), ("y", "#010203", False),
    ]  # fmt: skip


def test_a_terminal_keeps_the_newest_lines(evaluate):
    count, first = evaluate(
        "const t = new page.ansi.Terminal(100); t.write(Array.from({length: 1000}, (_, at) => `${at}\\n`).join(''));"
        "return [t.lines.length, t.runs(0)[0].text]"
    )
    assert (count, first) == (100, "901")


PEN = "const path = []; const pen = { moveTo: (...to) => path.push([...to, true]), lineTo: (...to) => path.push([...to, false]) };"
GROUND = "const ground = { x: (value) => value / 100, y: (value) => value };"


def test_a_line_of_many_points_keeps_every_columns_extremes(evaluate):
    rng = random.Random(0)
    values = [rng.gauss(0, 1) + (40 if at == 5050 else 0) for at in range(10_000)]
    path = evaluate(
        f"{PEN}{GROUND} page.paint.trace(pen, ground, {{ from: 0, to: 9999, crowded: true }}, values.map((_, at) => at), values);"
        "return path",
        values=values,
    )
    assert len(path) <= 4 * 100
    assert [pen_down for _, _, pen_down in path].count(True) == 1
    for column in range(100):
        found = [y for x, y, _ in path if x == column + 0.5]
        own = values[100 * column : 100 * column + 100]
        assert (min(found), max(found), found[0], found[-1]) == (min(own), max(own), own[0], own[-1])


def test_a_line_has_gaps_and_a_point_between_two_is_seen(evaluate):
    path = evaluate(
        f"{PEN}{GROUND} page.paint.trace(pen, ground, {{ from: 0, to: 6, crowded: false }}, [0, 100, 200, 300, 400, 500, 600],"
        "[1, 2, null, 3, null, 4, 5]); return path"
    )
    assert path == [[0, 1, True], [1, 2, False], [3, 3, True], [4, 3, False], [5, 4, True], [6, 5, False]]


STORE = """
    globalThis.window = globalThis;
    const later = setTimeout;
    globalThis.setTimeout = (call, wait) => later(call, (wait ?? 0) / 50);
    const sleep = (wait) => new Promise((go) => later(go, wait));
    let state = (globalThis.seed ?? 0) + 1;
    const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
    const store = [];
    let asked = 0;
    globalThis.fetch = async (url) => {
        asked += 1;
        const asked_for = (name, other) => Number(new URL(url, "http://own").searchParams.get(name) ?? other);
        const [begin, end] = [asked_for("begin", 0), asked_for("end", Infinity)];
        await sleep(random() * 10);
        const found = store.map((step, at) => [step, at]).filter(([step]) => begin <= step && step <= end);
        const [step, value] = [found.map((one) => one[0]), found.map((one) => one[1])];
        const points = btoa(String.fromCharCode(...new Uint8Array(new Float64Array([step, step, value, value].flat()).buffer)));
        const data = { name: "loss", level: 0, count: store.length, last: store.at(-1) ?? -1, points };
        await sleep(random() * 30);
        return { ok: true, json: async () => (url.includes("/curves") ? { curves: [data] } : data) };
    };
    const curve = new page.live_curve.LiveCurve("run", "loss", () => undefined);
    curve.alive = true;
    const tell = () => curve.pulse([store.at(-1), 0, store.length - 1, store.length]);
    const told = async () => { for (let wait = 0; wait < 100 && !curve.complete; wait += 1) await sleep(20); };
"""


@pytest.mark.parametrize("each", [1, 4])  # points of a step: of an accumulated gradient's batches
@pytest.mark.parametrize("seed", range(3))
def test_a_curve_that_grows_misses_nothing_however_late_answers_are(evaluate, seed, each):
    values, complete, asked = evaluate(
        f"""
        globalThis.seed = seed; {STORE}
        for (let at = 0; at < 500; at += 1) {{
            if (at === 50) void curve.load();
            store.push(Math.floor(at / each));
            if (random() < 0.3 || at === 499) tell();
            if (random() < 0.3) await sleep(1);
            if (random() < 0.1 || at === 499) void page.news.newsOf("run").ask(); // the last word comes once
        }}
        await told();
        return [curve.points.low, curve.complete, asked];
        """,
        seed=seed,
        each=each,
    )
    assert values == list(range(500))
    assert complete
    assert asked < 60  # of some 150 values that were told


def test_a_curve_that_is_read_anew_goes_on_whatever_is_asked_meanwhile(evaluate):
    steps = evaluate(
        f"""
        {STORE}
        store.push(...Array(11).keys());
        await curve.load();
        store.push(...[11, 12, 13]);
        tell();
        store.length = 6; // another attempt has begun, behind step 5
        tell();
        void page.news.newsOf("run").ask();
        await told();
        store.push(6);
        tell();
        return curve.points.step;
        """
    )
    assert steps == list(range(7))


def test_the_middle_of_the_fourth_epoch_is_3_5(evaluate):
    epochs = [
        {"epoch": at, "first_step": at * 10, "last_step": at * 10 + 10, "started": 0, "ended": 0} for at in range(4)
    ]
    points = {"step": [1, 10, 35, 45], "time": [0, 0, 0, 0], "low": [0] * 4, "high": [0] * 4}
    found = evaluate("return page.axis.along(points, 'epoch', {started: 0, epochs})", points=points, epochs=epochs)
    assert found == pytest.approx([0.1, 1.0, 3.5, 4.5])


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.000123456, "1.23e-4"), (1234567, "1,234,567"), (0.98765432, "0.9877"), (None, "–"), (0, "0"), (1e-9, "1e-9")],
)
def test_numbers_are_short(evaluate, value, shown):
    assert evaluate("return page.format.number(value)", value=value) == shown


@pytest.mark.parametrize(
    ("values", "shown"),
    [([0.99812, 0.99814, 0.99816], ["0.99812", "0.99814", "0.99816"]), ([1.0, 1.1, 1.2], ["1", "1.1", "1.2"]),
     ([-0.5, 0, 0.5], ["-0.5", "0", "0.5"]), ([1.2e-4, 1.25e-4], ["1.2e-4", "1.25e-4"]), ([3], ["3"])],
)  # fmt: skip
def test_neighbours_on_an_axis_are_told_apart(evaluate, values, shown):
    assert evaluate("return page.format.ticksOf(values)", values=values) == shown


def test_runs_without_a_value_are_last_in_both_orders(evaluate):
    runs = [{"name": str(at), "best_fitness": value} for at, value in enumerate([0.5, None, 0.9])]
    for down, order in ((True, ["2", "0", "1"]), (False, ["0", "2", "1"])):
        found = evaluate(
            "return page.runs_columns.sorted(runs, page.runs_columns.COLUMNS, 'fitness', down)", runs=runs, down=down
        )
        assert [run["name"] for run in found] == order


def test_the_page_has_no_html_from_strings():
    for path in sorted(Path(PAGE / "src").rglob("*.ts")):
        text = path.read_text(encoding="utf-8")
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "cssText",
        ):
            assert way not in text, f"{path.name}: {way}"
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    assert "<style" not in page
    assert "style=" not in page
    assert "<script>" not in page
