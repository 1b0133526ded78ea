"""kill -9 at any moment of a save: what was committed is found, whole, and of one moment.

Run as a script, this file is the process whose forks are killed: it has torch loaded once, and no threads.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests import preloaded

KILLS = 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
def test_fifty_kills_during_saves_lose_nothing(tmp_path):
    done = preloaded.run([__file__, str(tmp_path)], timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["kills"] == KILLS
    assert report["killed inside a save"] >= KILLS // 4  # else the test would prove nothing
    assert report["saves"] >= KILLS // 4


def parts(number: int) -> dict:
    import torch

    return {
        "model": {f"layer{n}.weight": torch.full((128, 128), float(number)) for n in range(4)},
        "optimizer": {"state": {n: {"exp_avg": torch.full((128, 128), float(number))} for n in range(4)}},
        "run": {"number": number},
    }


def number_in(saved) -> int:
    """Return the number that every tensor and the state agree on."""
    tensors = [*saved.load("model").values(), *(one["exp_avg"] for one in saved.load("optimizer")["state"].values())]
    found = {value for tensor in tensors for value in tensor.unique().tolist()} | {float(saved.load("run")["number"])}
    assert len(found) == 1, f"{saved} mixes the moments {found}"
    assert saved.manifest.step == int(min(found))
    return saved.manifest.step


def save_forever(directory: Path, told: int) -> None:
    from epochal.checkpointing.retention import Keep
    from epochal.checkpointing.store import CheckpointStore

    store = CheckpointStore(directory)
    store.keep("loop", Keep(last=2, best=1))
    newest = store.newest_resume_point()
    number = number_in(newest) if newest else 0
    if newest:
        store.protect(newest.manifest.name)
    os.write(told, b"0\n")  # ready
    while True:
        number += 1
        store.save(parts(number), epoch=number, step=number, asked_by=["loop"], fitness=float(number % 7))
        os.write(told, f"{number}\n".encode())


def killed_once(directory: Path, wait: float) -> int:
    """Return the last number that the child said was committed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save_forever(directory, write)
        finally:
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as told:
        assert told.readline() == "0\n", "the child failed to resume"
        time.sleep(wait)  # the random moment itself: nothing is concluded from how long it is
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return max([int(line) for line in told if line.endswith("\n")], default=0)


def main(directory: Path) -> None:
    import torch

    from epochal.checkpointing.listing import read_listing
    from epochal.checkpointing.store import CheckpointStore

    torch.set_num_threads(1)
    rng, inside, newest = random.Random(5), 0, 0
    for _ in range(KILLS):
        newest = max(newest, killed_once(directory, rng.uniform(0.0, 0.15)))
        inside += any(one.name.startswith(".tmp-epochal") for one in directory.iterdir())
        listing = read_listing(directory)
        assert listing.damaged == {}, listing.damaged
        for saved in listing.saved:
            assert saved.verify(), f"{saved}: {saved.verify()}"
        found = CheckpointStore(directory).newest_resume_point()
        assert found is not None or newest == 0
        if found is not None:
            assert number_in(found) >= newest, "a committed checkpoint was lost"
            newest = number_in(found)
        assert not [one.name for one in directory.iterdir() if one.name.startswith((".tmp-epochal", ".bad-"))]
    print(json.dumps({"kills": KILLS, "saves": newest, "killed inside a save": inside}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
