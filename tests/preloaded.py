"""Processes that begin with PyTorch loaded: forked from one that has loaded it and done nothing else.

For tests of what a process does: train, be killed, print, exit. What importing costs or changes needs a process that
begins from nothing, by `subprocess`.
"""

import atexit
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import ExitStack, suppress
from functools import cache
from types import ModuleType

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
can_fork = hasattr(os, "fork") and hasattr(socket, "send_fds")


def run(arguments, *, input=None, timeout=None, **options):  # noqa: A002
    """Do what `subprocess.run([sys.executable, *arguments], capture_output=True, text=True)` does."""
    with ExitStack() as files:
        given, told, error = (files.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        given.write(input or "")
        given.seek(0)
        process = start(arguments, stdin=given, stdout=told, stderr=error, **options)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        told.seek(0)
        error.seek(0)
        return subprocess.CompletedProcess(list(arguments), code, told.read(), error.read())


def start(arguments, **options):
    """Do what `subprocess.Popen([sys.executable, *arguments], text=True)` does."""
    if can_fork:
        return Process(arguments, **options)
    return subprocess.Popen([sys.executable, *arguments], text=True, **options)


class Process:
    """A forked process with what tests need of `subprocess.Popen`."""

    def __init__(self, arguments, *, stdin=None, stdout=None, stderr=None, cwd=None, env=None):
        self.stdin = self.stdout = self.returncode = None
        given = [self.theirs("stdin", stdin), self.theirs("stdout", stdout), 2 if stderr is None else stderr.fileno()]
        self.status, tell = os.pipe()
        order = {"arguments": list(map(str, arguments)), "cwd": str(cwd or os.getcwd()), "env": dict(env or os.environ)}
        line = server()
        socket.send_fds(line, [json.dumps(order).encode() + b"\n"], [*given, tell])
        os.close(tell)
        for pipe, fd in ((stdin, given[0]), (stdout, given[1])):
            if pipe == subprocess.PIPE:
                os.close(fd)
        self.pid = int(self.told())

    def theirs(self, name, given):
        """Return the child's end; ours becomes an attribute."""
        number = ("stdin", "stdout").index(name)
        if given != subprocess.PIPE:
            return number if given is None else given.fileno()
        read, write = os.pipe()
        setattr(self, name, os.fdopen((write, read)[number], ("w", "r")[number]))
        return (read, write)[number]

    def told(self):
        """Return the next line of the one who waits for the child."""
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self.status, 1)
            assert more, "the process that is forked has ended"
            line += more
        return line

    def poll(self):
        """Return how it ended, None while it has not."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)

    def wait(self, timeout=None):
        """Wait until it is over and return how it ended."""
        if self.returncode is None:
            if not select.select([self.status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            self.returncode = int(self.told())
            os.close(self.status)
        return self.returncode

    def communicate(self, timeout=None):
        """Read what it prints to its end, and wait."""
        told = self.stdout.read() if self.stdout is not None else None
        self.wait(timeout)
        return told, None

    def send_signal(self, number):
        """Send a signal, unless it is over."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for pipe in (self.stdin, self.stdout):
            if pipe is not None:
                pipe.close()
        self.wait()


@cache
def server():
    """Start the process that is forked, one for all tests of this one; return the line to it."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.preloaded", str(theirs.fileno())]
    started = subprocess.Popen(command, pass_fds=[theirs.fileno()], cwd=ROOT)
    theirs.close()
    atexit.register(started.wait)
    atexit.register(ours.close)
    return ours


# -- the process that is forked -----------------------------------------------------------------------------------------


def serve(line):
    """Fork for each order, and tell how each child ended; return in a child what it shall be."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    waiting = {}
    while True:
        if woken in select.select([line, woken], [], [])[0]:
            os.read(woken, 100)
            tell(waiting)
            continue
        text, fds = b"", []
        while not text.endswith(b"\n"):
            part, more, _, _ = socket.recv_fds(line, 1 << 16, 4)
            if not part:
                os._exit(0)
            text, fds = text + part, fds + more
        child = os.fork()
        if child == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for fd in (*waiting.values(), woken, wake, fds.pop()):
                os.close(fd)
            line.close()
            return begun(json.loads(text), fds)
        waiting[child] = status = fds.pop()
        os.write(status, f"{child}\n".encode())
        for fd in fds:
            os.close(fd)


def tell(waiting):
    """Tell how those children ended that have."""
    for child in list(waiting):
        over, code = os.waitpid(child, os.WNOHANG)
        if over:
            status = waiting.pop(child)
            with suppress(BrokenPipeError):  # nobody waits any more
                os.write(status, f"{os.waitstatus_to_exitcode(code)}\n".encode())
            os.close(status)


def begun(order, streams):
    """Take over what a process is given; return its arguments."""
    for target, fd in enumerate(streams):
        os.dup2(fd, target)
        os.close(fd)
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    return order["arguments"]


def leave(error):
    """End as Python does, but for taking down all that was imported, which takes longer than what most were for."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    elif error is not None:
        sys.excepthook(type(error), error, error.__traceback__)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


def be(arguments):
    """Be what Python is with these arguments."""
    import numpy

    numpy.random.seed()
    sys.orig_argv[:] = [sys.executable, *arguments]
    kind, *rest = arguments
    if kind == "-m":
        sys.argv, sys.path[0] = rest, os.getcwd()
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv, sys.path[0] = ["-c", *rest[1:]], ""
        main = sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv, sys.path[0] = arguments, os.path.dirname(os.path.abspath(kind))
        runpy.run_path(kind, run_name="__main__")


def load():
    """Import what a training of PyTorch imports, and start nothing."""
    import torch
    import torch.distributed
    import torch.utils.data

    import epochal.cli
    import epochal.integrations.pytorch
    import epochal.testing  # noqa: F401

    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)  # the first optimizer imports much
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    load()
    arguments = serve(socket.socket(fileno=int(sys.argv[1])))
    try:
        be(arguments)
    except BaseException as error:
        leave(error)
    leave(None)
