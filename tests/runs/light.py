"""A training without a framework, with a store: the moments of an engine, and nothing else."""

import time

from epochal.core import lifetime
from epochal.core.run import Run
from epochal.runs.folder import RunFolder
from epochal.runs.recorder import Recorder


def light_run(folder, name="a", *, rank=0, fresh=True):
    run = Run(host="light", provides=frozenset({"stop_in_batch"}), folder=RunFolder(folder, name, fresh=fresh))
    run.engine.rank = rank
    Recorder(run)
    return run


def train(run, steps, *, body=None, every=1, pause=0.0, values=None):
    """Train; what each batch logs is its step, or ``values(step)``. Return the seconds that it took."""
    engine = run.engine
    lifetime.begin(run)
    began = time.perf_counter()
    error = None
    try:
        engine.train_start(1)
        engine.epoch_start(0)
        for batch in range(steps):
            engine.batch_start(batch)
            engine.stepped()
            if batch % every == 0:
                run.log({"loss": float(engine.step)} if values is None else values(engine.step))
            if body is not None:
                body(run)
            engine.batch_end()
            if pause:
                time.sleep(pause)
            if engine.stop_now():
                break
        engine.train_epoch_end()
        engine.epoch_end()
        engine.train_end()
    except BaseException as raised:
        error = raised
        raise
    finally:
        spent = time.perf_counter() - began
        lifetime.finish(run, error)
    return spent
