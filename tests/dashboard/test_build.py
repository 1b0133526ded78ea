"""The page is built with the package, once, and where it cannot be built the package works without it."""

import shutil
from pathlib import Path

import pytest

import hatch_build


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's sources, and where it is built, in a folder of their own."""
    for name in ("PAGE", "STATIC", "WORK"):
        monkeypatch.setattr(hatch_build, name, tmp_path / name.lower())
    shutil.copytree(hatch_build.ROOT / "src" / "epochal" / "dashboard" / "page", tmp_path / "page")
    return tmp_path


def built(folder: Path) -> None:
    """Let it look as if the page had been built."""
    (folder / "static").mkdir()
    (folder / "static" / ".built").write_text(hatch_build.fingerprint())


def test_nothing_is_built_again_until_a_source_changes(elsewhere, monkeypatch):
    def no_npm(*arguments: str, **options: object) -> None:
        raise hatch_build.PageError("asked for npm")

    monkeypatch.setattr(hatch_build, "call", no_npm)
    built(elsewhere)
    assert hatch_build.build() is False
    (elsewhere / "page" / "src" / "main.ts").open("a").write("\n")
    with pytest.raises(hatch_build.PageError, match="asked for npm"):
        hatch_build.build()
    assert (elsewhere / "static" / ".built").is_file()  # the page that was there stays


def test_without_npm_the_package_is_built_and_the_cure_is_named(elsewhere, monkeypatch):
    monkeypatch.setenv("npm_config_registry", "http://127.0.0.1:9/")
    monkeypatch.setattr(hatch_build, "PATIENCE", ("--fetch-retries=0",))
    monkeypatch.delenv("EPOCHAL_PAGE", raising=False)
    said: list[str] = []
    hook = object.__new__(hatch_build.PageBuildHook)
    app = type("App", (), {"display_warning": staticmethod(said.append)})()
    monkeypatch.setattr(hatch_build.PageBuildHook, "app", app, raising=False)
    data: dict[str, list[str]] = {}
    hook.initialize("editable", data)
    assert "python hatch_build.py" in said[0]
    assert data["artifacts"] == ["/src/epochal/dashboard/static/*"]
    monkeypatch.setenv("EPOCHAL_PAGE", "required")
    with pytest.raises(hatch_build.PageError, match="npm failed"):
        hook.initialize("standard", {})


def test_no_host_is_named_in_what_npm_reads():
    text = (hatch_build.PAGE / "package.json").read_text()
    assert "://" not in text
    assert not (hatch_build.PAGE / "package-lock.json").exists()
