"""The live page's frames a second: ``python -m benchmarks.page``, with Chromium, which draws without a window.

``--write`` puts the table into docs/benchmarks.md.

Two measures of twenty charts. The hardest case: each has 2,000 ranges and is drawn anew in every frame. The real one:
the page itself, over a real server, while a training logs twenty curves in each batch, 150 times a second.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import hatch_build
from tests.dashboard.browser import a_browser, a_page, served, training

sys.path.append(str(Path(__file__).parent))
from report import table, write

SECONDS = 5
WANTED = 50.0  # frames a second
HARNESS = Path(__file__).with_name("page_frames.ts")
STYLE = "body{display:grid;grid-template-columns:repeat(4,380px);gap:10px}"
COUNT = """async seconds => {
    let frames = 0, drawings = 0; const begin = performance.now();
    const context = CanvasRenderingContext2D.prototype, clear = context.clearRect;
    context.clearRect = function (...given) { drawings += 1; return clear.apply(this, given); };
    while (performance.now() - begin < seconds * 1000) { await new Promise(requestAnimationFrame); frames += 1; }
    context.clearRect = clear;
    const took = (performance.now() - begin) / 1000;
    return { frames: frames / took, drawings: drawings / took }; }"""


def harness(folder: Path) -> str:
    """Bundle the hardest case with the page's own drawing."""
    modules, script = hatch_build.install(), folder / "frames.js"
    bundled = ("--bundle", "--format=iife", f"--outfile={script}", "--log-level=warning")
    esbuild = str(modules / "esbuild" / "bin" / "esbuild")
    hatch_build.call("node", esbuild, str(HARNESS), *bundled, modules=modules)
    return script.read_text(encoding="utf-8")


def spent() -> float:
    """Return the processor's seconds that Chromium has used: unlike frames they do not depend on what else runs."""
    import psutil

    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            if "chrom" in process.name():
                used = process.cpu_times()
                total += used.user + used.system
        except psutil.Error:  # it has ended
            continue
    return total


def hardest(browser: Any, script: str) -> dict[str, float]:
    """Twenty charts, all drawn in every frame."""
    page = browser.new_page(viewport={"width": 1600, "height": 1150})
    page.set_content(f"<style>{STYLE}</style>")
    page.add_script_tag(content=script)
    before = spent()
    found: dict[str, float] = page.evaluate(f"measure({SECONDS})")
    found["cpu"] = 1000 * (spent() - before) / (found["frames"] * SECONDS)
    page.close()
    return found


def real(browser: Any, folder: Path) -> dict[str, float]:
    """The page while a training logs: frames a second, drawings of charts a second, processors, and how many charts."""
    arguments = ("--curves", "20", "--epochs", "1000", "--batches", "400", "--pause", "0.005")
    size = {"width": 1600, "height": 2400}
    with served(folder) as link, training(folder, "twenty", *arguments), a_page(browser, link, viewport=size) as page:
        page.get_by_role("link", name="twenty", exact=True).click(timeout=90_000)
        page.get_by_role("searchbox", name="Filter charts").fill("curve/")
        page.locator("article:visible canvas").nth(19).wait_for()
        page.wait_for_timeout(2000)
        before = spent()
        found: dict[str, float] = page.evaluate(COUNT, SECONDS)
        charts = page.locator("article:visible canvas").count()
        return {**found, "share": (spent() - before) / SECONDS, "charts": charts}


def main() -> int:
    """Measure both, and say whether they are what is wanted."""
    with tempfile.TemporaryDirectory() as place, a_browser() as browser:
        hard = hardest(browser, harness(Path(place)))
        live = real(browser, Path(place) / "runs")
    busy = hard["frames"] * hard["cpu"] / 1000
    rows = [
        ["each drawn in every frame", hard["frames"], hard["frames"], busy],
        ["over a training that logs 20 curves", live["frames"], live["drawings"] / live["charts"], live["share"]],
    ]
    head = ["20 charts of 2,000 ranges", "frames/s", "drawings/s of a chart", "processors"]
    shown = [[what, f"{frames:.1f}", f"{drawings:.1f}", f"{share:.2f}"] for what, frames, drawings, share in rows]
    text = f"{table(head, shown)}\n\nWanted over a training: at least {WANTED:.0f} frames/s."
    print(text)
    if "--write" in sys.argv:
        write(text, ("docs/benchmarks.md",), "page")
    return 0 if live["frames"] >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
