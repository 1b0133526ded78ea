"""`epochal dashboard`: one address, printed once; a taken port is no obstacle; Ctrl-C is the end."""

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from epochal.commands import dashboard
from epochal.core.errors import MissingExtra

UNBUILT = f"{dashboard.UNBUILT}\n"


@pytest.fixture
def begin(tmp_path):
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    begun = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", "epochal", "dashboard", *map(str, arguments)], text=True, cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "NO_COLOR": "1", **environment},
        )  # fmt: skip
        begun.append(process)
        return process

    yield start
    for process in begun:
        process.kill()
        process.communicate()


def address(process):
    """Read what a server says until its address, and return both."""
    said = ""
    for line in process.stdout:
        said += line
        if "Ctrl-C" in line:
            return re.search(r"http://127.0.0.1:(\d+)/\?token=(\S+)", said).groups(), said
    raise AssertionError(said + process.stderr.read())


def end(process, number=signal.SIGINT):
    process.send_signal(number)
    out, error = process.communicate(timeout=20)
    return out, error.replace(UNBUILT, ""), process.returncode


def test_the_address_lets_in_and_a_second_start_takes_another_port(begin, runs):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    first = begin(runs, "--port", port)
    (own, token), said = address(first)
    assert int(own) == port
    second = begin(runs, "--port", port, "--read-only")
    (other, _), _ = address(second)
    assert other != own

    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with opener.open(f"http://127.0.0.1:{own}/?token={token}") as answer:
        assert answer.status == 200
    with opener.open(f"http://127.0.0.1:{own}/api/runs") as answer:
        assert b'"digits"' in answer.read()

    out, error, status = end(first)
    assert (status, error) == (0, "")
    assert out.endswith("ended\n")
    assert (said + out).count(token) == 1
    out, error, status = end(second)
    assert status == 0
    assert error == f"port {port} is taken; this is another one\n"


def test_a_page_that_was_not_built_is_told_with_its_cure(tmp_path):
    pytest.importorskip("uvicorn")
    script = (
        "import pathlib, epochal.dashboard.static_files as files;"
        "files.Page.__init__.__defaults__ = (pathlib.Path('nowhere'),);"
        "from epochal.dashboard import server; from epochal.commands.dashboard import start;"
        "server.Dashboard.serve = lambda self: self.socket.close();"
        "start(pathlib.Path(), server.Place(port=0))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == UNBUILT
    assert "http://127.0.0.1:" in done.stdout  # the API works all the same


def test_the_browser_is_opened_without_the_token_for_all_to_see(begin, tmp_path, state):
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$@" > {seen}.part\nmv {seen}.part {seen}\n')
    browser.chmod(0o755)
    process = begin("not there yet", "--open", "--port", "0", BROWSER=f"{browser} %s")
    (_, token), _ = address(process)
    while not seen.exists():
        assert process.poll() is None
    told = seen.read_text().strip()
    assert token not in told
    file = Path(told.removeprefix("file://"))
    assert token in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    _, error, status = end(process)
    assert status == 0
    assert "not there yet is not there yet" in error


def test_ctrl_c_ends_it_though_python_swallows_it_while_it_begins(tmp_path):
    program = """if True:
        import os, signal, sys, time, webbrowser, weakref
        from pathlib import Path
        from epochal.commands.dashboard import start
        from epochal.dashboard.server import Place

        class Thing: pass

        def browser(address):
            thing = Thing()
            held = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.SIGINT), time.sleep(0.1)))
            del thing  # what is raised in its callback is shown, and goes no further
            print("swallowed", file=sys.stderr)
            return True

        webbrowser.open = browser
        start(Path("runs"), Place(port=0), show=True)
    """
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout[-6:]) == (0, "ended\n"), done.stderr
    assert "swallowed" in done.stderr


@pytest.mark.parametrize(("arguments", "word"), [
    (["--host", "0.0.0.0"], "--remote"), (["--host", "0.0.0.0", "--remote"], "--certfile"), (["--host", "x"], "IP address"),
    (["--keyfile", "k.pem"], "--certfile"), (["pyproject.toml"], "no folder"), (["--certfile", "nowhere.pem"], "nowhere.pem"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(begin, tmp_path, arguments, word):
    (tmp_path / "pyproject.toml").touch()
    process = begin(*arguments, "--port", "0")
    out, error = process.communicate(timeout=60)
    assert process.returncode == 2
    assert word in error
    assert error.count("\n") == 1
    assert "token" not in out


def test_what_is_missing_is_told_with_its_cure(monkeypatch):
    monkeypatch.setattr(dashboard, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r'pip install "epochal\[dashboard\]"'):
        dashboard.need_packages()
