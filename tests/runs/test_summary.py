"""The summary beside a store says what the store says, or is not believed."""

import contextlib
import json
import os
import shutil
import sqlite3

import pytest

import epochal.runs
from epochal.dashboard.listing import Listing
from epochal.dashboard.served import Served
from epochal.runs import summary
from epochal.runs.stored import StoredRun
from tests.runs.light import light_run, train


@pytest.fixture
def run(tmp_path):
    one = light_run(tmp_path)
    one.log_params({"lr": float("inf"), "name": "\ud800"})
    train(one, 20, values=lambda step: {"loss": 1 / step, "odd": float("nan")})
    return StoredRun(tmp_path / "a")


def opened(monkeypatch):
    """Return the list of files that SQLite opens from now on."""
    files, connect = [], sqlite3.connect

    def counted(file, *arguments, **options):
        files.append(file)
        return connect(file, *arguments, **options)

    monkeypatch.setattr(sqlite3, "connect", counted)
    return files


def from_store(run):
    with run.reading() as connection:
        return summary.read(connection)


def listed(folder):
    return [{**one} for one in json.loads(Listing(Served(folder)).as_json())["runs"]]


def test_a_finished_run_is_listed_without_its_store(run, monkeypatch):
    wanted, files = from_store(run), opened(monkeypatch)
    assert str(run.told()) == str(wanted)
    assert (run.state, run.newest()["loss"]["low"], run.summary()["params"]["lr"]) == ("finished", 1 / 20, float("inf"))
    assert epochal.runs.open(run.path.parent).table("loss")[0]["min loss"] == 1 / 20
    assert [(one["state"], one["step"], one["best"]["epoch/loss"]["value"]) for one in listed(run.path.parent)] == [
        ("finished", 20, run.newest()["epoch/loss"]["value"])
    ]
    assert files == []


@pytest.mark.parametrize("change", ["tag", "untag", "note", "beside"])
def test_what_somebody_changes_is_seen_at_once_and_listed_quickly_again_later(run, change, monkeypatch):
    run.tag("old")
    said = lambda: (run.told().tags, from_store(run).tags)  # noqa: E731
    for number in range(20):  # many in the time that a disk cannot tell apart
        if change == "tag":
            run.tag(f"new{number}")
        elif change == "untag":
            run.untag("old")
        elif change == "note":
            run.add_note("a note")
        else:
            with contextlib.closing(sqlite3.connect(run.file)) as connection, connection:
                connection.execute("INSERT OR REPLACE INTO tags VALUES (?)", (f"by hand {number}",))
        told, wanted = said()
        assert told == wanted
    monkeypatch.setattr(summary, "SETTLED", 0)
    told = run.told()
    files = opened(monkeypatch)
    assert run.told() == told
    assert files == []


def test_a_write_in_the_moment_in_which_the_summary_was_made_is_seen(run):
    """Of the time at which a disk saw the last write nobody can say whether another one followed."""
    before = run.file.stat()
    run.tag("x")
    os.utime(run.file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))  # a disk whose clock has not moved since
    assert run.file.stat().st_size == before.st_size
    assert run.told().tags == ["x"]


@pytest.mark.parametrize("spoilt", ["", "{", "[]", "null", "{}", '{"version": 1}', "torn", "shorter", "other", "link"])
def test_a_summary_that_is_no_summary_is_not_believed(run, spoilt, tmp_path):
    file, wanted = run.path / "summary.json", str(from_store(run))
    whole = file.read_text()
    if spoilt == "torn":
        spoilt = whole[: len(whole) // 2]
    elif spoilt == "shorter":
        row, rest = whole.splitlines()
        told = json.loads(rest)
        told["curves"]["loss"].pop()
        spoilt = f"{row}\n{json.dumps(told)}"
    elif spoilt == "other":
        spoilt = whole.replace('"version":2', '"version":3').replace("finished", "crashed")
    if spoilt == "link":
        (tmp_path / "elsewhere").write_text(whole.replace("finished", "crashed"))
        file.unlink()
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.write_text(spoilt)
    assert str(run.told()) == wanted
    assert listed(run.path.parent)[0]["state"] == "finished"


SPOILT_ROWS = {
    "another": ('"trainer":', '"id":"of another","trainer":'),
    "more": ('"error":null}', '"error":null},{}'),
    "markup": ('"trainer":"', '"trainer":"<b>'),
    "nan": ('"fitness":null', '"fitness":NaN'),
    "running": ('"ended":', '"ended":null,"beat":'),
    "not ascii": ('"trainer":"', '"trainer":"\xe9'),
}


@pytest.mark.parametrize("kind", SPOILT_ROWS)
def test_a_row_that_is_none_is_not_listed(run, kind):
    file, (old, new) = run.path / "summary.json", SPOILT_ROWS[kind]
    wanted, whole = listed(run.path.parent), file.read_text()
    assert old in whole
    file.write_text(whole.replace(old, new, 1))
    assert listed(run.path.parent) == wanted


def test_a_row_that_was_kept_is_that_of_the_store(run):
    kept = listed(run.path.parent)
    (run.path / "summary.json").unlink()
    assert kept == listed(run.path.parent)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_in_its_place_holds_nobody_up(run):
    (run.path / "summary.json").unlink()
    os.mkfifo(run.path / "summary.json")
    assert run.state == "finished"


def test_a_training_that_goes_on_a_copy_and_a_store_put_in_its_place_are_read_anew(run, tmp_path):
    train(light_run(tmp_path, "a", fresh=False), 3, values=lambda step: {"loss": 99.0})
    assert (run.newest()["loss"]["high"], run.newest()["loss"]["count"]) == (99.0, 3)
    train(light_run(tmp_path, "b"), 5)
    shutil.copyfile(tmp_path / "b" / "run.db", run.file)
    assert run.newest()["loss"]["count"] == 5
    shutil.copytree(tmp_path / "b", tmp_path / "copy")  # with its times: as good as the original
    assert str(StoredRun(tmp_path / "copy").told()) == str(StoredRun(tmp_path / "b").told())


def test_a_running_training_is_never_told_by_a_summary(run, tmp_path, monkeypatch):
    seen = set()

    def body(one):
        if one.step == 30:
            while one.recorder.writer.entries or not one.recorder.writer.book.empty:
                pass
            seen.add(run.state)
            seen.add(run.newest()["loss"]["value"])

    train(light_run(tmp_path, "a", fresh=False), 30, body=body)
    assert "running" in seen
    assert seen & {29.0, 30.0}
    assert run.newest()["loss"]["value"] == 30.0


def test_a_folder_in_which_nothing_can_be_written_is_listed_all_the_same(run, monkeypatch):
    wanted = str(from_store(run))
    (run.path / "summary.json").unlink()
    monkeypatch.setattr(summary, "SETTLED", 0)

    def refused(*_):
        raise PermissionError("a disk that is only read")

    monkeypatch.setattr(os, "replace", refused)
    assert str(run.told()) == wanted
    assert sorted(one.name for one in run.path.iterdir()) == ["run.db", "run.json"]
