"""A table exists once; where it is told again, it is told the same. And the tree names no machine and no host."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

import epochal
from tools.constraints import pins, table_of_tested
from tools.house import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]


def tracked_files():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_tree_names_no_package_index_and_no_path_of_a_machine():
    hosts = "|".join([r"py(pi|thonhosted)\.", r"npm(js)?\.", r"debian\."])
    forbidden = re.compile(rf"({hosts})o[r]g|/(wor[k]|roo[t]|hom[e]/\w+|User[s]/\w+)/[\w.]")
    found = []
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if forbidden.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert found == []


def test_no_tracked_file_is_large():
    assert [path.name for path in tracked_files() if path.stat().st_size > 1024 * 1024] == []


def test_constraints_are_names_and_versions_and_cover_every_package_we_name():
    named = {
        re.match(r"[\w.-]+", requirement).group().lower().replace("_", "-")
        for group in [PYPROJECT["project"]["dependencies"], *EXTRAS.values()]
        for requirement in group
    } - {"epochal"}
    assert named <= set(pins())


def test_tested_versions_in_the_package_are_those_of_the_constraints():
    from epochal.tested import TESTED

    assert dict(TESTED) == table_of_tested(), "run `make constraints`"


def test_readme_tells_every_extra_a_user_may_want():
    readme = (ROOT / "README.md").read_text()
    assert [extra for extra in EXTRAS if f"`{extra}`" not in readme] == []


def test_every_command_is_told_in_the_docs_and_no_other():
    from typer.main import get_command

    from epochal.cli import app

    commands = set(get_command(app).commands)
    told = set(re.findall(r"^## `epochal ([\w-]+)", (ROOT / "docs/commands.md").read_text(), flags=re.MULTILINE))
    assert told == commands


def test_every_page_of_the_docs_is_linked_from_the_index():
    index = (ROOT / "docs/index.md").read_text()
    pages = [page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md"]
    assert [page for page in pages if f"({page})" not in index] == []


def test_every_callback_has_a_page_in_the_index_of_callbacks_and_no_page_is_of_another():
    from tests.contract.test_callbacks import callback_classes

    homes = {cls.__module__.rpartition(".")[2]: cls.__name__ for cls in callback_classes()}
    index = (ROOT / "docs/callbacks.md").read_text()
    pages = {page.stem: page.read_text() for page in (ROOT / "docs/callbacks").glob("*.md")}
    assert pages.keys() == homes.keys()
    assert [
        name for name, text in pages.items() if not text.startswith(f"# {homes[name]}\n") or "```python" not in text
    ] == []
    assert [name for name in homes if f"[{homes[name]}](callbacks/{name}.md)" not in index] == []


def test_version_and_supported_pythons_are_told_once_and_the_same():
    assert f"## [{epochal.__version__}]" in (ROOT / "CHANGELOG.md").read_text()
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PYPROJECT["project"]["requires-python"]).groups()
    assert int(low) <= sys.version_info.minor < int(high)
    for tool in ("find-python", "install"):
        assert f"(3, {low}) <= sys.version_info[:2] <= (3, {int(high) - 1})" in (ROOT / "tools" / tool).read_text()


def test_examples_and_tools_compile_on_the_oldest_python():
    for folder in ("examples", "tools", "benchmarks"):
        for path in (ROOT / folder).glob("*.py"):
            ast.parse(path.read_text(), feature_version=(3, 11))
