"""Notifier: real webhooks and commands; a dead one costs nothing, and no secret is shown."""

import json
import pickle
import socket
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from epochal import Callback, LossSpike, Notifier
from epochal.core.errors import ArgumentError
from epochal.testing import simulate

EPOCHS = [{"val/loss": 2.0}, {"val/loss": 1.0}]
BOUND = 30.0


class Hook(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.server.kinds.append(self.headers["Content-Type"])
        self.send_response(self.server.code)
        self.end_headers()

    def log_message(self, *_): ...


@contextmanager
def webhook(code=200):
    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        server.got, server.kinds, server.code = [], [], code
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server, f"http://127.0.0.1:{server.server_port}/services/T0/hunter2"
        finally:
            server.shutdown()
            thread.join(BOUND)


def test_a_best_value_that_json_does_not_have_is_null():
    with webhook() as (server, url):
        simulate([Notifier(url)], [{"val/loss": float("-inf")}])
    assert server.got[0]["best"] == {"fitness": None}


class Fail(Callback):
    def on_train_batch_end(self, run):
        if run.epoch == 1:
            raise ValueError("no such luck\nsecond line")


def test_the_end_is_told_with_the_run_its_state_and_its_best(tmp_path):
    with webhook() as (server, url):
        result = simulate([Notifier(url)], EPOCHS, dir=tmp_path)
    (got,) = server.got
    assert server.kinds == ["application/json"]
    assert (got["event"], got["run"], got["state"], got["epoch"], got["step"]) == ("end", "simulate", "completed", 1, 2)
    assert got["best"] == {"fitness": -1.0}
    assert got["text"] == got["content"] == "simulate: completed, epoch 2 of 2, step 2, best fitness -1, val/loss 1"
    assert result.run.past[-1].notes == ()
    assert not [one for one in threading.enumerate() if one.name == "epochal notifier"]


def test_a_failure_is_told_with_the_first_line_of_its_error():
    with webhook() as (server, url), pytest.raises(ValueError, match="luck"):
        simulate([Notifier(url), Fail()], EPOCHS)
    assert [one["event"] for one in server.got] == ["failure"]
    assert "failed with ValueError: no such luck, epoch 2" in server.got[0]["text"]


def test_a_stop_is_told_with_its_reason():
    class Enough(Callback):
        def on_fit_epoch_end(self, run):
            run.stop("that is enough")

    with webhook() as (server, url):
        simulate([Notifier(url), Enough()], EPOCHS)
    assert "stopped (Enough: that is enough)" in server.got[0]["text"]


def test_spikes_are_told_but_not_each_of_many():
    times = iter(range(0, 10_000, 10))
    losses = [*([1.0, 1.1, 0.9] * 4), 90.0, *([1.0, 1.1, 0.9] * 4), 90.0, *([1.0, 1.1, 0.9] * 4)]

    def spikes_told(pause):
        with webhook() as (server, url):
            notifier = Notifier(url, on=["spike"], pause=pause, clock=lambda: next(times))
            simulate([LossSpike(window=8), notifier], [{"train/loss": one} for one in losses])
        return [one["event"] for one in server.got]

    assert spikes_told(1.0) == ["spike", "spike"]
    assert spikes_told(1000.0) == ["spike"]


def test_two_of_them_get_names_of_their_own():
    with webhook() as (one, first), webhook() as (other, second):
        result = simulate([Notifier(first), Notifier(second)], EPOCHS)
    assert (len(one.got), len(other.got)) == (1, 1)
    assert {"Notifier", "Notifier#2"} <= set(result.run.roster.callbacks)


def test_only_what_is_wanted_is_told():
    with webhook() as (server, url):
        simulate([Notifier(url, on=["failure"])], EPOCHS)
    assert server.got == []


def test_a_message_of_ones_own():
    class Speak(Callback):
        def on_fit_epoch_end(self, run):
            notifier.send("half way")

    with webhook() as (server, url):
        notifier = Notifier(url, on=["failure"])
        notifier.send("to nobody: nothing trains")
        simulate([notifier, Speak()], EPOCHS[:1])
    assert [one["event"] for one in server.got] == ["message"]
    assert "half way" in server.got[0]["text"]


def test_a_command_gets_the_text_on_its_input_and_in_its_arguments(tmp_path):
    script = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read() + '|' + sys.argv[2])"
    out = tmp_path / "out.txt"
    simulate([Notifier(command=[sys.executable, "-c", script, str(out), "{event} of {run}"])], EPOCHS)
    text, _, argument = out.read_text().partition("|")
    assert text.startswith("simulate: completed")
    assert argument == "end of simulate"


@contextmanager
def silent():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(16)  # the kernel accepts, nobody answers
        yield None, f"http://127.0.0.1:{taken.getsockname()[1]}/services/T0/hunter2"


@contextmanager
def refusing():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        yield None, f"http://127.0.0.1:{taken.getsockname()[1]}/services/T0/hunter2"


@pytest.mark.parametrize("dead", [silent, refusing, lambda: webhook(code=500)], ids=["hangs", "refuses", "fails"])
def test_a_dead_webhook_costs_nothing_and_shows_no_secret(dead, caplog):
    with dead() as (_, url):
        notifier = Notifier(url, timeout=0.5)
        begun = time.monotonic()
        result = simulate([notifier], EPOCHS)
    assert time.monotonic() - begun < BOUND
    assert (result.end_reason, result.epochs_run) == ("completed", 2)
    (note,) = result.run.past[-1].notes
    assert "could not be sent" in note
    assert "hunter2" not in caplog.text + note + repr(notifier) + notifier.name


def test_a_command_that_fails_or_is_not_there_costs_nothing(caplog):
    for command in (["/no/such/program", "hunter2"], [sys.executable, "-c", "raise SystemExit(3)", "hunter2"]):
        result = simulate([Notifier(command=command)], EPOCHS)
        assert result.end_reason == "completed"
        assert result.run.past[-1].notes == ("Notifier: 1 messages could not be sent",)
    assert "hunter2" not in caplog.text


def test_it_can_be_pickled_and_serves_a_second_training():
    with webhook() as (server, url):
        notifier = pickle.loads(pickle.dumps(Notifier(url, clock=time.monotonic)))
        simulate([notifier], EPOCHS)
        simulate([notifier], EPOCHS)
    assert len(server.got) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "either the url"),
        ({"url": "https://a.b/c", "command": ["x"]}, "either the url"),
        ({"url": "ftp://a.b/hunter2"}, "http:// or https://"),
        ({"command": "mail me"}, "is a list"),
        ({"url": "https://a.b/c", "on": "end"}, "list of end, failure, spike"),
        ({"url": "https://a.b/c", "on": ["crash"]}, "list of end, failure, spike"),
        ({"url": "https://a.b/c", "timeout": 0}, "timeout"),
    ],
)
def test_wrong_arguments_are_said(options, said):
    with pytest.raises(ArgumentError, match=said) as error:
        Notifier(**options)
    assert "hunter2" not in str(error.value)
