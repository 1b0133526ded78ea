"""What is new comes by itself, from one look that serves all who watch; nobody watching costs nothing."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import uuid

import pytest

import epochal.runs


def train(folder, epochs=3):
    """A training beside the server: it knows nothing of it but the folder."""
    import torch

    from epochal import Loop

    with Loop(model=torch.nn.Linear(1, 1), dir=folder, name="alive") as run:
        for epoch in run.epochs(epochs):
            for x in run.batches(range(100)):
                run.log({"train/loss": 1 / (1 + x + 100 * epoch)})
                time.sleep(0.004)


class Stream:
    """Server-sent events, one by one; HTTP/1.0, so that they come as they are."""

    def __init__(self, client, *ids, query=""):
        query = "&".join(f"run={one}" for one in ids) + query
        self.socket = client.connect()
        self.socket.sendall(client.raw("GET", f"/api/stream?{query}").replace(b"HTTP/1.1", b"HTTP/1.0", 1))
        self.lines = self.socket.makefile("r", encoding="ascii", newline="\n")
        assert " 200 " in self.lines.readline()
        self.headers = [line.strip().lower() for line in iter(self.lines.readline, "\r\n")]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.lines.close()
        self.socket.close()

    def next(self, wanted=None):
        """Return the next event of a kind (or of any): its kind and what it says; None at the end of the stream."""
        while True:
            block = []
            while (line := self.lines.readline()) not in ("", "\n"):
                block.append(line)
            if line == "":
                return None
            told = dict(line.rstrip("\n").partition(": ")[::2] for line in block)
            if "event" in told and wanted in (None, told["event"]):
                return told["event"], json.loads(told["data"])
            if wanted == "comment" and "" in told:
                return "comment", told[""]

    def until(self, wanted, true):
        """Return what the first event of a kind says for which something is true."""
        while (found := self.next(wanted)) is not None:
            if true(found[1]):
                return found[1]
        return None


def change(runs, query, *arguments, name="digits"):
    with sqlite3.connect(runs / name / "run.db") as connection:
        connection.execute(query, arguments)


def step_on(runs, name="digits"):
    change(runs, "UPDATE newest SET step = step + 1, time = time + 1, count = count + 1 WHERE series IN"
                 " (SELECT id FROM series WHERE name = 'val/loss')", name=name)  # fmt: skip


def test_a_stream_begins_with_how_things_are(own, runs):
    newest = epochal.runs.open(runs)["digits"].newest()
    with Stream(own, own.id()) as stream:
        assert "content-type: text/event-stream; charset=utf-8" in stream.headers
        told = dict([stream.next(), stream.next()])
        assert told["runs"]["version"] == own.get("/api/runs").json["version"]
        run = told["run"]
        assert (run["id"], run["state"], run["step"], run["epoch"]) == (own.id(), "finished", 100, 3)
        assert set(run["newest"]) == set(newest)
        assert run["newest"]["val/loss"] == [newest["val/loss"][key] for key in ("step", "time", "value", "count")]
        assert run["newest"]["<script>alert(1)</script>"][2] is None


def test_who_wants_no_list_is_told_of_the_run_alone(own, runs):
    with Stream(own, own.id(), query="&list=0") as stream:
        assert stream.next()[0] == "run"
        step_on(runs)
        assert stream.next()[0] == "run"
    assert own.dashboard.streams.list.version == 0


def test_only_what_has_changed_is_told_then(own, runs):
    with Stream(own, own.id()) as stream:
        stream.next("run")
        step_on(runs)
        told = stream.until("run", lambda run: run["newest"])
        assert list(told["newest"]) == ["val/loss"]
        assert told["newest"]["val/loss"][0] == 101
        change(runs, "INSERT INTO events VALUES (7, 1, 'stop', 5, 0, 9.5, 'a', 'b', '{}')")
        change(runs, "INSERT INTO commands VALUES ('c', 'stop', '{}', 'page', 3.5, 9, 'applied', 1, 0, 4.5, '')")
        told = stream.until("run", lambda run: run["audit"])
        assert (told["events"], told["audit"], told["newest"]) == (7, 4.5, {})


def test_the_curve_of_a_training_elsewhere_grows_and_its_end_is_told(own, runs):
    pytest.importorskip("torch")
    with Stream(own) as stream:
        stream.next("runs")
        training = threading.Thread(target=train, args=[runs])
        training.start()
        while "alive" not in own.runs():
            assert stream.next("runs") is not None
        with Stream(own, own.id("alive")) as watched:
            steps, states = [], []
            while not states or states[-1] == "running":
                _, told = watched.next("run")
                steps.append(told["step"])
                states.append(told["state"])
                shown = own.get(f"/api/runs/{told['id']}/curve?name=train/loss")
                assert shown.status in (200, 404)  # nothing was written yet
        training.join()
    assert states[-1] == "finished"
    assert steps == sorted(steps)
    assert len(set(steps)) >= 4
    assert shown.json["step"] == list(epochal.runs.open(runs)["alive"].metric("train/loss").step)


def test_a_training_that_is_told_to_stop_stops_and_says_at_which_step(own, runs):
    pytest.importorskip("torch")
    training = threading.Thread(target=train, args=[runs, 1000])
    with Stream(own) as stream:
        stream.next("runs")
        training.start()
        while "alive" not in own.runs() or not own.get(f"/api/runs/{own.id('alive')}").json["commands"]:
            assert stream.next("runs") is not None
    one = own.id("alive")
    with Stream(own, one) as watched:
        asked = {"id": str(uuid.uuid4()), "name": "stop", "arguments": {}}
        assert own.post(f"/api/runs/{one}/commands", asked).status == 202
        told = watched.until("run", lambda run: run["state"] not in ("running", "paused"))
    training.join()
    [row] = own.get(f"/api/runs/{one}/audit").json["commands"]
    assert (told["state"], row["id"], row["state"], row["by"]) == ("stopped", asked["id"], "applied", "page")
    assert 0 < told["step"] <= row["step"] <= told["step"] + 1  # the step that was being logged
    print(f"\nasked to answered: {1000 * (row['answered'] - row['asked']):.0f} ms, steps of 4 ms")


def test_a_run_that_begins_elsewhere_in_the_folder_shows_within_a_second(own, runs):
    shutil.copytree(runs / "digits", runs.parent / "made elsewhere")
    with Stream(own) as stream:
        version = stream.next("runs")[1]["version"]
        for number in range(3):
            begun = time.perf_counter()
            shutil.copytree(runs.parent / "made elsewhere", runs / f"new{number}")
            version = stream.until("runs", lambda told, version=version: told["version"] > version)["version"]
            assert time.perf_counter() - begun < 1.0
            assert f"new{number}" in own.runs()


def test_a_run_that_is_deleted_is_gone(own, runs):
    with Stream(own, own.id()) as stream:
        stream.next("run")
        shutil.rmtree(runs / "digits")
        assert stream.until("run", lambda told: told["state"] == "gone")
        while own.runs():
            stream.next("runs")


def test_a_process_that_dies_without_a_word_is_told(own, runs):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    from epochal.runs.process import host_name, started

    change(runs, "UPDATE sessions SET ended = NULL, state = 'running', pid = ?, host = ?, process = ?",
           child.pid, host_name(), started(child.pid))  # fmt: skip
    with Stream(own, own.id()) as stream:
        assert stream.until("run", lambda told: told["state"] == "running")
        child.kill()
        child.wait()
        assert stream.until("run", lambda told: told["state"] == "crashed")


def test_fifty_watchers_cost_one_look(serve, runs, monkeypatch):
    from epochal.dashboard import stream as streaming

    looks = []
    read = streaming.read_head
    monkeypatch.setattr(streaming, "read_head", lambda *given: looks.append(1) or read(*given))
    client = serve(runs)
    streams = client.dashboard.streams
    watchers = [Stream(client, client.id()) for _ in range(50)]
    for one in watchers:
        one.next("run")
    for round_ in range(1, 4):
        step_on(runs)
        for one in watchers:
            one.until("run", lambda told, step=100 + round_: told["step"] == step)
    assert len(looks) <= 8  # a change may come between two looks, but not fifty times
    assert len(streams.runs) == 1
    for one in watchers:
        one.__exit__()
    until = time.monotonic() + 20
    while (streams.bells or streams.runs or streams.list.task) and time.monotonic() < until:
        time.sleep(0.01)
    assert not streams.bells
    assert not streams.runs
    assert streams.list.task is None
    before = len(looks)
    step_on(runs)
    time.sleep(0.3)
    assert len(looks) == before


def test_all_who_watch_are_told_to_ask_at_once_and_one_read_answers_them(own, runs, monkeypatch):
    from epochal.dashboard import api

    reads = []
    read = api.detail.together
    monkeypatch.setattr(api.detail, "together", lambda *given: reads.append(1) or read(*given))
    with Stream(own, own.id()) as first, Stream(own, own.id()) as second:
        for stream in (first, second):
            stream.until("run", lambda told: told["ask"])
        step_on(runs)
        for stream in (first, second):
            assert (
                stream.until("run", lambda told: told["ask"])["step"] == 101
            )  # a second later, without another change
        query = f"/api/runs/{own.id()}/curves?name=train/loss&begin=50&end=101"
        answers = {own.get(query).body for _ in range(5)}
        assert len(answers) == len(reads) == 1
        for _ in range(2):
            own.get(query.replace("101", "102"))  # it may grow: nobody else shall have this answer
        assert len(reads) == 3
        change(runs, "INSERT INTO attempts VALUES (2, 1, 0, 60, 2)")
        first.next("run")
        assert own.get(query).body not in answers


def test_a_step_that_gets_a_further_point_is_read_again(own, runs):
    """Of an accumulated gradient's batches, or without an optimizer's steps, many points stand at one step."""
    query = f"/api/runs/{own.id()}/curves?name=train/loss&begin=99&end=99"
    with Stream(own, own.id()) as stream:
        stream.until("run", lambda told: told["ask"])
        assert own.get(query).json["curves"][0]["count"] == 100
        change(runs, "UPDATE newest SET count = 101, time = time + 1 WHERE count = 100")
        stream.until("run", lambda told: told["ask"])
        assert own.get(query).json["curves"][0]["count"] == 101


def test_a_run_that_is_gone_takes_none_of_the_others_with_it(own, runs):
    other = own.id()
    with Stream(own, other, "bm9uZQ", query="&list=0") as stream:
        assert stream.next("run")[1]["id"] == other
    assert own.get("/api/stream?run=bm9uZQ").status == 404


def test_a_watcher_that_reads_nothing_holds_up_no_other(own, runs):
    idle = [Stream(own, own.id()) for _ in range(5)]
    with Stream(own, own.id()) as stream:
        for number in range(5):
            step_on(runs)
            assert stream.until("run", lambda told, step=101 + number: told["step"] == step)
    for one in idle:
        one.__exit__()


def test_a_line_tells_that_the_connection_lives(serve, runs, monkeypatch):
    from epochal.dashboard import stream as streaming

    monkeypatch.setattr(streaming, "HEARTBEAT", 0.05)
    with Stream(serve(runs)) as stream:
        for _ in range(3):
            assert stream.next("comment") == ("comment", "alive")


def test_a_broken_run_can_be_watched(own, runs):
    one = own.id()
    (runs / "digits" / "run.db").write_text("this is no database" * 100)
    with Stream(own, one) as stream:
        assert stream.next("run")[1]["state"] == "unreadable"


def test_what_is_not_there_or_too_much_is_refused(own):
    assert own.get("/api/stream?run=bm93aGVyZQ").status == 404
    assert own.get("/api/stream?" + "&".join(f"run={number}" for number in range(100))).status == 400


def test_streams_end_with_the_server(serve, runs):
    client = serve(runs)
    with Stream(client, client.id()) as stream:
        stream.next("run")
        begun = time.perf_counter()
        client.dashboard.stop()
        while stream.next() is not None:
            pass
        assert time.perf_counter() - begun < 10


def test_a_store_with_nonsense_in_it_can_be_watched_and_listed(serve, runs):
    nonsense = "ended = NULL, state = 'running', pid = '../../nowhere', process = 'x', about = '[]'"
    change(runs, f"UPDATE sessions SET {nonsense}")
    os.utime(runs / "digits" / "run.db", (1e9, 1e9))
    client = serve(runs)
    one = client.id()
    assert client.runs()["digits"]["state"] == "unreadable"
    assert client.get(f"/api/runs/{one}").status == 422
    with Stream(client, one) as stream:
        assert stream.next("run")[1]["state"] in ("unreadable", "crashed")
