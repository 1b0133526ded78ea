"""`make check`: format, lint, types, the rules of the house, and every example of the documentation."""

import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTEST = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs", "src"]

STEPS: dict[str, list[str]] = {
    "format": [sys.executable, "-m", "ruff", "format", "--check", "."],
    "lint": [sys.executable, "-m", "ruff", "check", "."],
    "types": [sys.executable, "-m", "pyright", "--pythonpath", sys.executable],
    "page": [sys.executable, "hatch_build.py", "--check"],
    "house": [*PYTEST, "tests/house"],
    "docs": [*PYTEST, *DOCUMENTS],
}


def main() -> int:
    """Run every step, also after one has failed, and tell at the end which failed."""
    failed: list[str] = []
    for name, command in STEPS.items():
        print(f"--- {name}", flush=True)
        start = time.monotonic()
        if subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode:
            failed.append(name)
        print(f"    {time.monotonic() - start:.1f} s", flush=True)
    print(f"make check: {'failed: ' + ', '.join(failed) if failed else 'all ' + str(len(STEPS)) + ' steps passed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
