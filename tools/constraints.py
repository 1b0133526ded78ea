"""Write constraints.txt: the versions .venv has now, resolved for every supported Python and system.

Names, versions and environment markers only. Whatever the environment does not have (a package that only
macOS or another Python needs) is resolved to its newest version.
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
HEADER = "# What Epochal is tested with. Made by `make constraints`.\n"
PIN = re.compile(r"^[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?$")


def uv(*arguments: str) -> str:
    """Return what uv prints."""
    command = [str(Path(sys.executable).parent / "uv"), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Put the installed versions into the file, as what uv shall prefer, and let it resolve them."""
    installed = [line for line in uv("pip", "freeze", "--exclude-editable").splitlines() if PIN.match(line)]
    TARGET.write_text("\n".join(installed) + "\n")
    options = ["--universal", "--python-version", "3.11", "--no-annotate", "--no-header", "--quiet"]
    uv("pip", "compile", "pyproject.toml", "--extra", "dev", *options, "--output-file", str(TARGET))
    pins = [line for line in TARGET.read_text().splitlines() if PIN.match(line)]
    TARGET.write_text(HEADER + "\n".join(pins) + "\n")
    print(f"{TARGET.name}: {len(pins)} pins")


if __name__ == "__main__":
    main()
