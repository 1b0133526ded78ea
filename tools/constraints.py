"""Write constraints.txt and src/epochal/tested.py: the versions .venv has now, for every supported Python and system.

Names, versions and environment markers only. Whatever the environment does not have (a package that only
macOS or another Python needs) is resolved to its newest version.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "constraints.txt"
TESTED = ROOT / "src" / "epochal" / "tested.py"
HEADER = "# What Epochal is tested with. Made by `make constraints`.\n"
PIN = re.compile(r"^[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .+)?$")


def uv(*arguments: str) -> str:
    """Return what uv prints."""
    command = [str(Path(sys.executable).parent / "uv"), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def pins() -> dict[str, str]:
    """Return package -> version as the constraints file has it."""
    found: dict[str, str] = {}
    for line in TARGET.read_text().splitlines():
        if line and not line.startswith("#"):
            assert PIN.match(line), f"neither a name nor a version: {line}"
            name, version = line.partition(" ;")[0].split("==")
            found[name.lower()] = version
    return found


def table_of_tested() -> dict[str, str]:
    """Return the pins of the packages that a user's extras name; `dev` is ours alone."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *(v for k, v in project["optional-dependencies"].items() if k != "dev")]
    names = {re.split(r"[^\w.-]", requirement)[0].lower() for group in groups for requirement in group}
    return {name: version for name, version in sorted(pins().items()) if name in names}


def write_tested() -> None:
    """Write the table that the installed package carries."""
    rows = "".join(f'    "{name}": "{version}",\n' for name, version in table_of_tested().items())
    TESTED.write_text(
        '"""The versions that Epochal was tested with; made by `make constraints`."""\n\n'
        "from collections.abc import Mapping\n\n"
        f"TESTED: Mapping[str, str] = {{\n{rows}}}\n"
    )


def main() -> None:
    """Put the installed versions into the file, as what uv shall prefer, and let it resolve them."""
    installed = [line for line in uv("pip", "freeze", "--exclude-editable").splitlines() if PIN.match(line)]
    TARGET.write_text("\n".join(installed) + "\n")
    options = ["--universal", "--python-version", "3.11", "--no-annotate", "--no-header", "--quiet"]
    uv("pip", "compile", "pyproject.toml", "--extra", "dev", *options, "--output-file", str(TARGET))
    lines = [line for line in TARGET.read_text().splitlines() if PIN.match(line)]
    TARGET.write_text(HEADER + "\n".join(lines) + "\n")
    write_tested()
    print(f"{TARGET.name}: {len(lines)} pins")


if __name__ == "__main__":
    main()
