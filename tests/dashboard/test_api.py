"""The API says what the store's own reader says, truthfully, of live, dead and broken runs alike."""

import base64
import csv
import io
import json
import math
import os
import shutil
import sqlite3
import struct
import time
import uuid
from urllib.parse import urlencode

import numpy as np
import pytest

import epochal.runs
from epochal.checkpointing.store import CheckpointStore

ONE = "/api/runs/ZGlnaXRz"


@pytest.fixture
def live(runs):
    """Make the recorded run look as while it trains, by this process, with commands that it takes."""
    from epochal.core.control import VERBS
    from epochal.runs.process import this_process

    process = this_process()
    offered = [{"name": verb.name, "label": verb.label, "arguments": [one._asdict() for one in verb.arguments],
                "available": verb.name != "validate", "why_not": None if verb.name != "validate" else "no val loader"}
               for verb in VERBS.values()]  # fmt: skip
    with sqlite3.connect(runs / "digits" / "run.db") as connection:
        connection.execute(
            "UPDATE sessions SET ended = NULL, state = 'running', pid = ?, host = ?, process = ?, commands = ?",
            (process["pid"], process["host"], process["started"], json.dumps(offered)),
        )
    return runs


def stored(runs):
    return epochal.runs.open(runs)["digits"]


def change(runs, query, *arguments):
    with sqlite3.connect(runs / "digits" / "run.db") as connection:
        connection.execute(query, arguments)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_the_list_tells_of_each_run_what_its_store_holds(own, runs):
    row, run = own.runs()["digits"], stored(runs)
    newest = run.newest()
    assert (row["name"], row["state"], row["trainer"], row["control"]) == ("digits", "finished", "Loop", True)
    assert (row["epoch"], row["num_epochs"], row["step"]) == (3, 4, 100)
    assert row["fitness"] == newest["fitness"]["value"] == -0.125
    assert row["best_fitness"] == newest["fitness"]["high"] == -0.125
    assert row["best"]["val/loss"] == {
        "low": 0.125,
        "low_step": 100,
        "high": 0.5,
        "high_step": 25,
        "value": 0.125,
        "mode": "min",
    }
    assert row["spark"] == {"name": "fitness", "values": pytest.approx(run.metric("fitness").value, rel=1e-5)}
    assert row["started"] == run.sessions[0]["started"]
    assert row["ended"] == run.sessions[-1]["ended"]


def test_a_run_is_told_as_its_store_tells_it(own, runs):
    found, run = own.get(ONE).json, stored(runs)
    assert found["params"] == run.params
    assert [one["from_step"] for one in found["attempts"]] == [one["from_step"] for one in run.attempts]
    assert found["about"] == run.sessions[-1]["about"]
    assert [curve["name"] for curve in found["curves"]] == sorted(run.metrics())
    kinds = {curve["name"]: curve["kind"] for curve in found["curves"]}
    assert kinds["train/loss"] == "batch"
    assert kinds["epoch/train/loss"] == kinds["fitness"] == "epoch"
    assert kinds["val/loss"] == "point"
    spans = [(one["epoch"], one["first_step"], one["last_step"]) for one in found["epochs"]]
    assert spans == [(0, 0, 25), (1, 25, 50), (2, 50, 75), (3, 75, 100)]


@pytest.mark.parametrize("name", ["train/loss", "epoch/train/loss", "val/loss", "fitness"])
def test_a_curve_has_the_points_of_the_store(client, recorded, name):
    found = client.get(f"{ONE}/curve?name={name}").json
    curve = epochal.runs.open(recorded)["digits"].metric(name)
    assert found["step"] == list(curve.step)
    assert found["time"] == list(curve.time)
    assert found["low"] == found["high"] == list(curve.value)
    assert found["level"] == 0


def test_a_curve_in_few_ranges_keeps_its_extremes(client, recorded):
    found = client.get(f"{ONE}/curve?name=train/loss&most=8").json
    values = epochal.runs.open(recorded)["digits"].metric("train/loss").value
    assert len(found["step"]) <= 8
    assert (min(found["low"]), max(found["high"])) == (values.min(), values.max())
    assert found["level"] == 1


def test_a_part_of_a_curve_is_what_lies_between_two_steps(client, recorded):
    found = client.get(f"{ONE}/curve?name=train/loss&begin=30&end=40").json
    curve = epochal.runs.open(recorded)["digits"].metric("train/loss")
    assert found["step"] == [step for step in curve.step if 30 <= step <= 40]
    assert client.get(f"{ONE}/curve?name=train/loss&begin=1000").json["step"] == []


def unpacked(curve):
    numbers = struct.unpack(f"<{len(data := base64.b64decode(curve['points'])) // 8}d", data)
    size = len(numbers) // 4
    return [list(numbers[at * size : (at + 1) * size]) for at in range(4)]


def test_packed_numbers_are_those_of_the_json(client):
    for name in ("train/loss", "spiky"):
        plain, packed = (client.get(f"{ONE}/curve?name={name}{form}").json for form in ("", "&packed=1"))
        shown = [[value if math.isfinite(value) else None for value in column] for column in unpacked(packed)]
        assert shown == [plain[column] for column in ("step", "time", "low", "high")]
        assert (packed["level"], packed["count"]) == (plain["level"], plain["count"])


def test_what_is_new_of_several_curves_comes_in_one_answer(client, recorded):
    asked = (("val/loss", 60, 200), ("no more", 0, 1), ("train/loss", 98, 99))
    query = urlencode([pair for one in asked for pair in zip(("name", "begin", "end"), one, strict=True)])
    found = client.get(f"{ONE}/curves?{query}").json["curves"]
    run = epochal.runs.open(recorded)["digits"]
    assert [one and (one["name"], unpacked(one)[0], one["count"]) for one in found] == [
        ("val/loss", [75, 100], 4), None, ("train/loss", [98, 99], 100),
    ]  # fmt: skip
    curve = run.metric("train/loss")
    assert unpacked(found[2])[2] == [one for step, one in zip(curve.step, curve.value, strict=True) if 98 <= step <= 99]
    bad = ("", "name=val/loss&begin=0", "name=val/loss&begin=-1&end=1", "&".join(["name=a&begin=0&end=1"] * 65))
    for query in bad:
        assert client.get(f"{ONE}/curves?{query}").status == 400


def test_what_is_new_comes_as_coarse_as_the_whole_curve(client, recorded):
    curve = epochal.runs.open(recorded)["digits"].metric("train/loss")
    for most, begin, few in ((10, 40, 4), (10, 99, 1), (50, 40, 30), (100, 40, 60), (2000, 40, 60)):
        (found,) = client.get(f"{ONE}/curves?name=train/loss&begin={begin}&end=99&most={most}").json["curves"]
        steps, _, lows, highs = unpacked(found)
        values = [value for step, value in zip(curve.step, curve.value, strict=True) if step >= begin]
        assert len(steps) == few
        assert (steps[0], min(lows), max(highs)) == (begin, min(values), max(values))
        assert (found["count"], found["last"]) == (100, 99)


def test_each_rank_that_keeps_a_file_can_be_looked_at(own, runs):
    shutil.copyfile(runs / "digits" / "run.db", runs / "digits" / "run-1.db")
    with sqlite3.connect(runs / "digits" / "run-1.db") as connection:
        connection.execute("UPDATE newest SET step = 7")
    (runs / "digits" / "run-x.db").touch()
    assert own.get(ONE).json["ranks"] == [{"rank": 0, "id": "ZGlnaXRz"}, {"rank": 1, "id": "ZGlnaXRz.1"}]
    found = own.get(f"{ONE}.1").json
    assert {curve["step"] for curve in found["curves"]} == {7}
    assert own.get(f"{ONE}.1/curve?name=val/loss").json["step"] == [25, 50, 75, 100]
    assert {one["why_not"] for one in found["commands"]} == {"rank 0 takes the commands, for all"}
    for other in ("2", "0", "01", "x", "-1", "", "1.1"):
        assert own.get(f"{ONE}.{other}").status == 404


def test_numbers_that_json_does_not_have_are_null(client):
    values = client.get(f"{ONE}/curve?name=%3Cscript%3Ealert(1)%3C/script%3E").json["high"]
    assert values == [None] * 100
    spiky = client.get(f"{ONE}/curve?name=spiky").json["high"]
    assert spiky == [2.0, None, 2.0, 2.0]
    text = client.get("/api/runs").body + client.get(ONE).body
    assert b"NaN" not in text
    assert b"Infinity" not in text


@pytest.mark.parametrize("query", ["", "name=val/loss&most=0", "name=val/loss&most=x", "name=val/loss&most=99999999",
                                   "name=val/loss&begin=-1", "name=val/loss&end=1e5", "name=val/loss&begin=9" + "9" * 30,
                                   "name=val/loss&attempt=1;--"])  # fmt: skip
def test_a_question_that_makes_no_sense_is_told_so(client, query):
    answered = client.get(f"{ONE}/curve?{query}")
    assert answered.status == 400
    assert answered.json["error"]


def test_an_unknown_curve_is_told_with_the_nearest(client):
    answered = client.get(f"{ONE}/curve?name=val/los")
    assert answered.status == 404
    assert "'val/loss'" in answered.json["error"]


def test_an_earlier_attempt_is_read_by_its_number(own, runs):
    change(runs, "INSERT INTO attempts VALUES (2, 1, 0, 50, 2)")
    current = own.get(f"{ONE}/curve?name=train/loss").json
    assert max(current["step"]) <= 50
    assert [one["epoch"] for one in own.get(ONE).json["epochs"]] == [0, 1]
    assert len(own.get(f"{ONE}/curve?name=train/loss&attempt=1").json["step"]) == 100


def test_csv_has_every_point_exactly(client, recorded):
    answered = client.get(f"{ONE}/export.csv?names=train/loss,val/loss&names=spiky")
    assert answered.header("content-type") == "text/csv; charset=utf-8"
    assert answered.header("content-disposition").startswith("attachment")
    rows = list(csv.DictReader(io.StringIO(answered.body.decode())))
    for name in ("train/loss", "val/loss", "spiky"):
        mine, curve = [row for row in rows if row["curve"] == name], epochal.runs.open(recorded)["digits"].metric(name)
        np.testing.assert_array_equal([float(row["value"]) for row in mine], curve.value)
        np.testing.assert_array_equal([float(row["time"]) for row in mine], curve.time)
        assert [int(row["step"]) for row in mine] == list(curve.step)
        assert [int(row["epoch"]) for row in mine] == list(curve.epoch)
    everything = client.get(f"{ONE}/export.csv").body.decode()
    assert {row["curve"] for row in csv.DictReader(io.StringIO(everything))} == set(
        epochal.runs.open(recorded)["digits"].metrics()
    )
    assert client.get(f"{ONE}/export.csv?names=nope").status == 404


def test_checkpoints_are_listed_with_the_best(own, runs):
    store = CheckpointStore(runs / "digits" / "checkpoints")
    for epoch, fitness in enumerate([0.25, 0.75, math.nan]):
        store.save({"run": {"x": 1}}, epoch=epoch, step=10 * epoch, reason="asked", metrics={"val/loss": math.inf},
                   fitness=fitness, pinned=epoch == 0)  # fmt: skip
    found = own.get(ONE).json["checkpoints"]
    assert [(one["epoch"], one["step"], one["best"], one["pinned"]) for one in found] == [
        (0, 0, False, True), (1, 10, True, False), (2, 20, False, False)
    ]  # fmt: skip
    assert found[2]["fitness"] is None
    assert found[0]["metrics"] == {"val/loss": None}
    assert found[0]["size"] > 0


def test_what_happened_what_was_printed_and_what_was_lost_is_told(own, runs):
    for number in (1, 2, 3):
        change(
            runs, "INSERT INTO events VALUES (?, 1, 'stop', 5, 0, 9.5, 'EarlyStopping', 'enough', '{\"a\": 1}')", number
        )
        change(runs, "INSERT INTO console (session, time, text) VALUES (1, 1.5, ?)", f"line {number}\n")
    change(runs, "INSERT INTO losses (session, time, what, count, why) VALUES (1, 1.0, 'points', 7, 'disk full')")
    events = own.get(f"{ONE}/events").json["events"]
    assert [one["id"] for one in events] == [1, 2, 3]
    assert {**events[0], "id": 0} == {"id": 0, "kind": "stop", "step": 5, "epoch": 0, "time": 9.5, "by": "EarlyStopping",
                                      "text": "enough", "about": {"a": 1}}  # fmt: skip
    assert [one["id"] for one in own.get(f"{ONE}/events?after=2").json["events"]] == [3]
    lines = own.get(f"{ONE}/console").json["lines"]
    assert [one["text"] for one in lines][-3:] == ["line 1\n", "line 2\n", "line 3\n"]
    assert own.get(f"{ONE}/console?after={lines[-2]['id']}").json["lines"] == lines[-1:]
    assert own.get(ONE).json["losses"] == [{"time": 1.0, "what": "points", "count": 7, "why": "disk full"}]


def test_images_come_by_their_number_and_histograms_as_json(own, runs):
    from epochal.runs.png import as_png

    image = as_png(np.arange(12, dtype=np.uint8).reshape(2, 2, 3)).data
    insert = (
        "INSERT INTO media (attempt, kind, name, step, epoch, time, about, data) VALUES (1, ?, 'x', 3, 1, 2.0, ?, ?)"
    )
    change(runs, insert, "image", '{"width": 2, "height": 2, "boxes": []}', image)
    change(runs, insert, "histogram", "{}", b'{"edges": [0, 1], "counts": [3]}')
    listed = own.get(f"{ONE}/media?kind=image").json["media"]
    assert listed[0]["about"] == {"width": 2, "height": 2, "boxes": []}
    assert "data" not in listed[0]
    got = own.get(f"{ONE}/media/{listed[0]['id']}")
    assert (got.header("content-type"), got.body) == ("image/png", image)
    number = own.get(f"{ONE}/media?kind=histogram").json["media"][0]["id"]
    assert own.get(f"{ONE}/media/{number}").json == {"edges": [0, 1], "counts": [3]}
    assert own.get(f"{ONE}/media/999").status == 404


# -- many runs, dead ones and broken ones -----------------------------------------------------------------------------


def test_a_run_whose_process_died_without_a_word_has_crashed(live, own):
    assert own.runs()["digits"]["state"] == "running"
    change(live, "UPDATE sessions SET process = 'of a machine that was switched off'")
    assert own.get(ONE).json["state"] == "crashed"
    assert own.get(f"{ONE}/curve?name=val/loss").status == 200


@pytest.mark.parametrize("spoil", ["text", "empty", "torn", "future", "no tables", "json"])
def test_a_broken_run_is_listed_with_the_reason_and_harms_no_other(serve, runs, spoil):
    shutil.copytree(runs / "digits", runs / "broken")
    file = runs / "broken" / "run.db"
    if spoil == "text":
        file.write_text("this is no database" * 100)
    elif spoil == "empty":
        file.write_bytes(b"")
    elif spoil == "torn":
        data = bytearray(file.read_bytes())
        data[4096 : len(data) // 2] = b"\xff" * (len(data) // 2 - 4096)
        file.write_bytes(data)
    else:
        statement = {"future": "PRAGMA user_version = 99", "no tables": "DROP TABLE sessions",
                     "json": "UPDATE sessions SET about = '{'"}[spoil]  # fmt: skip
        with sqlite3.connect(file) as connection:
            connection.execute(statement)
    os.utime(file, (1e9, 1e9))
    client = serve(runs)
    found = client.runs()
    assert found["digits"]["state"] == "finished"
    assert found["broken"]["state"] == "unreadable"
    assert found["broken"]["error"]
    assert client.get(f"/api/runs/{found['broken']['id']}").status in (404, 422)
    assert client.get(ONE).status == 200


def test_a_run_in_the_making_is_not_called_broken(own, runs):
    (runs / "new").mkdir()
    (runs / "new" / "run.db").write_bytes(b"")
    assert set(own.runs()) == {"digits"}
    os.utime(runs / "new" / "run.db", (1e9, 1e9))
    while "new" not in own.runs():
        pass
    assert own.runs()["new"]["state"] == "unreadable"


def test_an_empty_or_missing_folder_has_no_runs(serve, tmp_path):
    assert serve(tmp_path / "missing").runs() == {}


def test_a_runs_own_folder_can_be_served(serve, runs):
    client = serve(runs / "digits")
    assert list(client.runs()) == ["."]
    assert client.get(f"/api/runs/{client.id('.')}").json["name"] == "digits"


def test_only_what_has_changed_is_asked_for_again(serve, runs, monkeypatch):
    from epochal.dashboard import listing

    monkeypatch.setattr(listing, "OFTEN", 0.0)
    monkeypatch.setattr(listing, "SELDOM", 0.0)
    shutil.copytree(runs / "digits", runs / "second")
    client = serve(runs)
    whole = client.get("/api/runs").json
    assert (len(whole["runs"]), whole["all"]) == (2, True)
    nothing = client.get(f"/api/runs?since={whole['version']}").json
    assert (nothing["runs"], nothing["gone"], nothing["all"]) == ([], [], False)
    assert nothing["version"] == whole["version"]
    change(runs, "INSERT INTO tags VALUES ('good')")
    changed = client.get(f"/api/runs?since={whole['version']}").json
    assert [(one["path"], one["tags"]) for one in changed["runs"]] == [("digits", ["good"])]
    shutil.rmtree(runs / "second")
    gone = client.get(f"/api/runs?since={changed['version']}").json
    assert (gone["runs"], len(gone["gone"])) == ([], 1)
    assert client.get("/api/runs?since=5").json["all"]  # of an earlier server


def test_runs_in_deep_folders_and_of_yolo_have_their_names(serve, runs):
    shutil.copytree(runs / "digits", runs / "detect" / "train" / "epochal")
    found = serve(runs).runs()
    assert found["detect/train/epochal"]["name"] == "train"


def test_a_thousand_runs_are_listed_in_time(serve, runs):
    for number in range(1000):
        shutil.copytree(runs / "digits", runs / f"run{number}")
    client = serve(runs)
    begun = time.perf_counter()
    assert len(client.runs()) == 1001
    first = time.perf_counter() - begun
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        client.get("/api/runs")
        times.append(time.perf_counter() - begun)
    begun = time.perf_counter()
    again = serve(runs)
    assert len(again.runs()) == 1001
    restarted = time.perf_counter() - begun
    print(f"\n1,001 runs: first list {first:.3f} s, later {min(times):.3f} s, of another server {restarted:.3f} s")
    assert min(times) < 0.3
    change(runs, "INSERT INTO tags VALUES ('new')")
    assert serve(runs).runs()["digits"]["tags"] == ["new"]  # a summary is believed while it holds


# -- changing ---------------------------------------------------------------------------------------------------------


def command(name="stop", **arguments):
    return {"id": str(uuid.uuid4()), "name": name, "arguments": arguments}


def test_a_command_waits_for_the_training_once(live, own):
    asked = command("scale_lr", factor=0.5)
    for _ in range(2):
        answered = own.post(f"{ONE}/commands", asked)
        assert (answered.status, answered.json) == (202, {"id": asked["id"]})
    [row] = own.get(f"{ONE}/audit").json["commands"]
    assert (row["id"], row["name"], row["state"], row["by"]) == (asked["id"], "scale_lr", "queued", "page")
    assert row["arguments"] == {"factor": 0.5, "group": None}


@pytest.mark.parametrize(("asked", "status"), [
    (command("scale_lr", factor=-1), 400), (command("scale_lr"), 400), (command("scale_lr", factor="0.5"), 400),
    (command("stop", now=True), 400), (command("stop", when="now"), 400), (command("rm -rf"), 409),
    (command("validate"), 409), ({"name": "stop"}, 400), ({**command(), "id": "../../etc"}, 400),
    ({**command(), "arguments": []}, 400), ({**command(), "name": 1}, 400), ({**command(), "by": "root"}, 400),
])  # fmt: skip
def test_a_command_that_cannot_be_is_refused_with_the_reason(live, own, asked, status):
    answered = own.post(f"{ONE}/commands", asked)
    assert answered.status == status
    assert answered.json["error"]
    assert own.get(f"{ONE}/audit").json["commands"] == []


def test_a_training_that_is_over_takes_no_commands(own, runs):
    answered = own.post(f"{ONE}/commands", command())
    assert answered.status == 409


def test_commands_say_whether_they_can_be_used_and_why_not(live, own):
    offered = {one["name"]: one for one in own.get(ONE).json["commands"]}
    assert offered["stop"]["available"]
    assert (offered["validate"]["available"], offered["validate"]["why_not"]) == (False, "no val loader")
    change(live, "UPDATE sessions SET ended = 1.0, state = 'failed'")
    offered = {one["name"]: one for one in own.get(ONE).json["commands"]}
    assert (offered["stop"]["available"], offered["stop"]["why_not"]) == (False, "the training is over: failed")


def test_notes_and_tags_are_kept_in_the_run(own, runs):
    assert own.post(f"{ONE}/notes", {"text": "looks good\nindeed"}).status == 201
    assert own.post(f"{ONE}/tags", {"add": ["good", "b"]}).json == {"tags": ["b", "good"]}
    assert own.post(f"{ONE}/tags", {"add": ["good"], "remove": ["b", "never there"]}).json == {"tags": ["good"]}
    assert [one["name"] for one in stored(runs).table("tags", order="name")] == ["good"]
    assert [(one["by"], one["text"]) for one in stored(runs).table("notes")] == [("page", "looks good\nindeed")]
    for bad in ({"add": "good"}, {"add": [""]}, {"add": ["x" * 65]}, {"add": [1]}, {"plus": []}):
        assert own.post(f"{ONE}/tags", bad).status == 400
