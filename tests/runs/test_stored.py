"""A recorded run for its readers: tables at full resolution, notes and tags, lists of runs."""

import contextlib
import csv
import json
import math
import os
import shutil
import sqlite3
import sys
from array import array

import pytest

import epochal.runs
from epochal.core.errors import ArgumentError
from epochal.core.requests import Command
from epochal.runs.commands import queue
from epochal.runs.environment import environment, without_secrets
from epochal.runs.network import network_filesystem
from epochal.runs.process import started, state_of, this_process
from epochal.runs.schema import StoreError, open_to_tell, open_to_write
from epochal.runs.stored import StoredRun
from epochal.runs.writer import StoreWriter
from tests.runs.light import light_run, train
from tests.runs.test_book import session

SPECIAL = {3: math.nan, 4: math.inf, 5: 0.1 + 0.2}


@pytest.fixture
def runs(tmp_path):
    for name, factor in (("slow", 1.0), ("fast", 2.0)):
        run = light_run(tmp_path, name)
        run.log_params({"lr": factor / 10, "who": name})
        values = lambda step: {"loss": SPECIAL.get(step, step * factor)} | ({"rare": 1.0} if step == 4 else {})  # noqa: B023, E731
        train(run, 10, values=values)
    return epochal.runs.open(tmp_path)


WANTED = [1.0, 2.0, math.nan, math.inf, 0.1 + 0.2, 6.0, 7.0, 8.0, 9.0, 10.0]


def check_long(names, steps, values):
    assert list(names) == ["loss"] * 10 + ["rare"]
    assert list(steps) == [*range(1, 11), 4]
    assert str([float(value) for value in values]) == str([*WANTED, 1.0])


def test_csv_has_every_point_as_it_was(runs, tmp_path):
    runs["slow"].to_csv(tmp_path / "long.csv", ["loss", "rare"])
    with open(tmp_path / "long.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    check_long((row["name"] for row in rows), (int(row["step"]) for row in rows), (row["value"] for row in rows))
    assert set(rows[0]) == {"name", "step", "epoch", "time", "value"}
    runs["slow"].to_csv(tmp_path / "wide.csv", ["loss", "rare"], wide=True)
    with open(tmp_path / "wide.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["step", "loss", "rare"]
    assert rows[3:6] == [["3", "", ""], ["4", "inf", "1.0"], ["5", "0.30000000000000004", ""]]


def test_frames_have_every_point_as_it_was(runs, tmp_path):
    pd, pl = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pytest.importorskip("pyarrow")
    runs["slow"].to_parquet(tmp_path / "long.parquet", ["loss", "rare"])
    long = ["loss", "rare"]
    for frame in (
        runs["slow"].to_pandas(long),
        runs["slow"].to_polars(long),
        pd.read_parquet(tmp_path / "long.parquet"),
    ):
        check_long(frame["name"], frame["step"], frame["value"])
        assert str(frame["step"].dtype).lower() == "int64"
    wide = runs["slow"].to_pandas(wide=True)
    assert wide["rare"].notna().sum() == 1
    assert wide.set_index("step")["loss"].to_dict()[10] == 10.0
    assert runs["slow"].to_polars([]).height == 0
    assert runs["slow"].to_polars("rare").height == 1
    assert isinstance(runs["fast"].to_polars(), pl.DataFrame)


def test_a_curve_of_no_ranges_is_refused(runs):
    with pytest.raises(ArgumentError, match="most=0 must be 1 or more"):
        runs["slow"].ranges("loss", most=0)


def test_a_curve_that_is_not_there_is_told_with_the_nearest(runs):
    with pytest.raises(StoreError, match="has no curve 'los'; did you mean 'loss'"):
        runs["slow"].metric("los")
    with pytest.raises(StoreError, match="no recorded run 'other'; there are slow, fast"):
        runs["other"]


def test_notes_and_tags_can_be_added_while_it_trains_and_later(tmp_path):
    def body(run):
        if run.step == 5:
            while run.recorder.writer.file.connection is None:
                pass
            stored = StoredRun(tmp_path / "a")
            stored.add_note("looks good", by="ada")
            stored.tag("good", "small", "good")

    train(light_run(tmp_path), 10, body=body)
    stored = StoredRun(tmp_path / "a")
    stored.untag("small", "never there")
    stored.add_note("still")
    assert [(note["by"], note["text"]) for note in stored.notes] == [("ada", "looks good"), ("user", "still")]
    assert stored.tags == ["good"]
    with pytest.raises(StoreError, match="there is no run store"):
        StoredRun(tmp_path / "nobody").tag("x")


def test_a_table_compares_runs(runs, tmp_path):
    rows = runs.table("loss")
    assert [row["name"] for row in rows] == ["slow", "fast"]
    assert [row["params/lr"] for row in rows] == [0.1, 0.2]
    assert [row["max loss"] for row in rows] == [10.0, 20.0]
    assert [row["steps"] for row in rows] == [10, 10]
    assert len(runs.filter(state="finished")) == 2
    train(light_run(tmp_path, "lost"), 3, values=lambda step: {"loss": math.nan if step == 3 else 1.0})
    lost = epochal.runs.open(tmp_path).table("loss", "none")[-1]
    assert (math.isnan(lost["loss"]), lost["max loss"], lost["none"]) == (True, 1.0, None)
    assert [run.name for run in runs.filter(lambda run: run.params["who"] == "fast")] == ["fast"]
    (tmp_path / "slow" / "run.db").write_bytes(b"torn" * 100)
    rows = runs.table("loss")
    assert rows[0]["state"].startswith("unreadable: ")
    assert rows[1]["state"] == "finished"


def test_a_note_on_an_old_run_does_not_make_it_the_newest(runs, tmp_path):
    runs["slow"].tag("remember")
    assert [run.name for run in epochal.runs.open(tmp_path)] == ["slow", "fast"]
    assert epochal.runs.open(tmp_path)[-1].name == "fast"


def test_the_list_is_true_when_runs_come_change_and_go(runs, tmp_path):
    shutil.copytree(tmp_path / "slow", tmp_path / "deep" / "er" / "copy")
    shutil.rmtree(tmp_path / "fast")
    found = epochal.runs.open(tmp_path)
    assert sorted(run.name for run in found) == ["copy", "slow"]
    assert found["deep/er/copy"].path == tmp_path / "deep" / "er" / "copy"
    train(light_run(tmp_path, "slow", fresh=False), 3, values=lambda step: {"loss": 99.0})
    assert found["slow"].newest()["loss"]["high"] == 99.0
    assert len(epochal.runs.open(tmp_path / "slow")) == 1
    assert len(epochal.runs.open(tmp_path / "nowhere")) == 0


def test_a_process_that_is_gone_has_crashed_and_one_elsewhere_is_known_by_its_beat():
    session = {"ended": None, "state": "running", "pid": 2**30, "host": "elsewhere", "process": "x", "beat": 100.0}
    assert state_of(session, now=110.0) == "running"
    assert state_of(session, now=120.0) == "crashed"
    assert state_of({**session, "ended": 105.0, "state": "finished"}, now=120.0) == "finished"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux has namespaces of processes")
def test_a_process_of_a_container_of_the_same_name_is_known_by_its_beat():
    """As of ``docker run --network host``: the host's name, but processes with numbers of their own."""
    own = this_process()
    session = {"ended": None, "state": "running", "pid": own["pid"], "host": own["host"], "beat": 100.0}
    assert state_of({**session, "process": own["started"]}, now=1e9) == "running"
    boot, ticks, namespace = own["started"].split(" ")
    dead = f"{boot} {int(ticks) - 1} {namespace}"
    assert state_of({**session, "process": dead}, now=101.0) == "crashed"
    for elsewhere in (f"{boot} {ticks} pid:[1]", f"{boot[::-1]} {ticks} {namespace}"):
        assert state_of({**session, "process": elsewhere}, now=101.0) == "running"
        assert state_of({**session, "process": elsewhere}, now=200.0) == "crashed"
    assert started(own["pid"]) == own["started"]


MOUNTS = """22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /shares rw - nfs4 server:/shares rw
31 30 8:2 / /shares/local\\040disk rw - xfs /dev/sdb rw
32 22 0:50 / /data rw shared:1 - fuse.sshfs me@host:/ rw
33 22 0:51 / /data rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/shares/me/runs", "nfs4"),
        ("/shares2/runs", None),
        ("/shares/local disk/runs", None),
        ("/data/runs", None),
        ("/", None),
    ],
)
def test_a_folder_on_a_network_is_known_by_the_mount_table(folder, kind, tmp_path, monkeypatch):
    monkeypatch.delenv("EPOCHAL_NETWORK_FILESYSTEM", raising=False)
    (tmp_path / "mountinfo").write_text(MOUNTS)
    assert network_filesystem(folder, tmp_path / "mountinfo") == kind
    monkeypatch.setenv("EPOCHAL_NETWORK_FILESYSTEM", "1")
    assert network_filesystem(folder, tmp_path / "mountinfo") == "told"


def test_on_a_network_no_memory_is_shared_and_everything_is_there(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_NETWORK_FILESYSTEM", "1")
    seen = set()

    def body(run):
        if run.step % 20 == 0:
            seen.update(path.name for path in (tmp_path / "a").glob("run.db*"))
            try:
                seen.add(len(StoredRun(tmp_path / "a").metrics()) > 0)
            except StoreError:
                seen.add(False)

    train(light_run(tmp_path), 300, body=body, pause=0.002)
    assert "run.db-shm" not in seen
    assert True in seen
    assert list(StoredRun(tmp_path / "a").points("loss").values) == list(range(1, 301))
    connection = open_to_write(tmp_path / "a" / "run.db")
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("truncate",)
    connection.close()


def test_no_secret_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "s3cr3t-of-the-environment")
    monkeypatch.setattr(
        "sys.orig_argv", ["python", "train.py", "--api-key", "s3cr3t-1", "--hf_token=s3cr3t-2", "a://u:s3cr3t-3@h/"]
    )
    train(light_run(tmp_path), 5)
    about = StoredRun(tmp_path / "a").sessions[0]["about"]
    assert about["command"] == ["python", "train.py", "--api-key", "***", "--hf_token=***", "a://u:***@h/"]
    assert {"python", "platform", "packages", "git", "trainer", "world_size"} <= set(about)
    assert b"s3cr3t" not in (tmp_path / "a" / "run.db").read_bytes()


def test_what_only_sounds_like_a_secret_is_shown():
    assert without_secrets(["--epochs", "3", "--monkey-name", "x"])[:2] == ["--epochs", "3"]
    assert "AWS_SECRET" not in json.dumps(environment())


def test_a_run_without_a_writable_folder_can_be_read(runs, tmp_path):
    folder = tmp_path / "slow"
    folder.chmod(0o555)
    try:
        assert runs["slow"].metrics() == sorted(runs["slow"].newest())
    finally:
        folder.chmod(0o755)
    with sqlite3.connect(folder / "run.db") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert os.listdir(folder).count("run.db") == 1


def test_a_curve_of_any_length_is_exported_in_little_memory(tmp_path):
    import tracemalloc

    from epochal.runs.book import Block, Book

    (tmp_path / "a").mkdir()
    connection, book = open_to_write(tmp_path / "a" / "run.db"), Book()
    count = 200_000
    book.begin_attempt(step=0, epoch=0, time=0.0)
    values = array("d", (step / 7 for step in range(count)))
    book.take_block(Block("batch", ("loss",), list(range(count)), [0] * count, [0.0] * count, values))
    connection.execute("BEGIN")
    book.write(connection, book.part(), session=1)
    connection.execute("COMMIT")
    connection.close()
    run = StoredRun(tmp_path / "a")
    tracemalloc.start()
    parts = sum(len(part) for part in run.parts("loss"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert parts == count
    assert peak < 28 * count * 0.75  # of what its points alone take
    run.to_csv(tmp_path / "long.csv")
    with open(tmp_path / "long.csv", newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == list(values)


def test_on_a_network_commands_are_looked_for_once_a_second(tmp_path, monkeypatch):
    monkeypatch.setenv("EPOCHAL_NETWORK_FILESYSTEM", "1")
    handed = []
    writer = StoreWriter(lambda: tmp_path / "run.db", session, handed.append)
    writer.begin_attempt(0, 0)
    writer.put("point", {"a": 1.0}, 1, 0, 0.0)
    assert writer.flush()
    writer.look()
    with contextlib.closing(open_to_tell(tmp_path / "run.db")) as connection:
        queue(connection, Command("1" * 8, "stop", {}, "me"))
    writer.look()
    assert handed == []
    monkeypatch.setattr("epochal.runs.writer.monotonic", lambda: writer.next_look)
    writer.look()
    assert [one.name for one in handed] == ["stop"]
    writer.file.shut()
