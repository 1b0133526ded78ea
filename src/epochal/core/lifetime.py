"""How a training of a run begins and ends: states in, events out, whatever happens."""

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from epochal.core import debug
from epochal.core.errors import AttachError
from epochal.core.log import log
from epochal.core.moment import Moment
from epochal.core.preemption import for_checkpoints, out_of_time, overdue, unwatch
from epochal.core.saving import close as close_saver
from epochal.core.saving import save
from epochal.core.summary import Summary

if TYPE_CHECKING:
    from epochal.core.engine import Engine
    from epochal.core.run import Run

SCOPE_ENDS = {  # what is open -> the event that closes it
    "train": "on_train_end",
    "epoch": "on_train_epoch_abort",
    "batches": "on_train_epoch_end",
    "batch": "on_train_batch_end",
    "step": "on_before_zero_grad",
    "validation": "on_val_end",
    "val_batch": "on_val_batch_end",
}
EXIT_REASONS = {"KeyboardInterrupt": "interrupted", "Preempted": "preempted"}


def begin(
    run: "Run", *, model: Any = None, optimizer: Any = None, trainer: Any = None, saved: Mapping[str, Any] | None = None
) -> None:
    """Begin a training anew, or, with ``saved``, go on where a checkpoint ends; callbacks have their state then."""
    engine = run.engine
    if engine.active:
        raise AttachError(f"this run is training already; a {type(run).__name__} has one training at a time")
    if run.detached:
        raise AttachError("this run is detached; attach again")
    engine.reset()
    engine.dispatcher.begin()
    engine.params.update(run.given_params)
    run.given_params.clear()
    engine.model, engine.optimizer, engine.trainer = model, optimizer, trainer
    engine.active = True
    try:
        if saved is not None:
            engine.load_state_dict(saved["run"])
        run.roster.begin(None if saved is None else saved["callbacks"])
        if debug.wanted():
            engine.grammar_watch = debug.GrammarWatch(run)
    except BaseException:
        run.roster.release()
        engine.active = False
        raise


def end_reason(error: BaseException) -> str:
    """Return the end reason that an exception stands for.

    >>> end_reason(KeyboardInterrupt()), end_reason(ValueError("x"))
    ('interrupted', 'exception')
    """
    for kind in type(error).__mro__:
        if kind.__name__ in EXIT_REASONS:
            return EXIT_REASONS[kind.__name__]
    return "exception"


def finish(run: "Run", error: BaseException | None = None) -> None:
    """End a training: if it failed the ends of what is open and ``on_exception``, then ``teardown``, to every callback.

    The first error of a callback is raised when the training itself did not fail; else it becomes a note on ``error``,
    which the integration raises.
    """
    engine = run.engine
    if not engine.active:
        return
    raised: list[BaseException | None] = []
    engine.drain()
    if error is not None:
        engine.error, engine.end_reason = error, end_reason(error)
        raised += close_failed(engine)
        raised.append(engine.slot("on_exception").fire_all(run))
        if engine.requests.saves and not out_of_time(engine):
            try:
                save(engine, Moment("epoch", engine.epoch, None, engine.step))
            except BaseException as failed:
                raised.append(failed)
    engine.end_reason = engine.end_reason or "completed"
    raised += close_saver(engine, for_checkpoints(engine))
    try:
        raised += teardown(run)
    finally:
        close(run)
    tell(run)
    errors = [one for one in raised if one is not None]
    late = overdue(engine, error)
    if late is not None and (error or errors):
        raise late from (error or errors[0])
    engine.parting[:0] = [late] if late is not None else []
    if error is None and errors:
        for other in errors[1:]:
            errors[0].add_note(f"then: {other!r}")
        raise errors[0]
    for other in errors:
        if error is not None and other is not error:
            error.add_note(f"while the training was ending: {other!r} {' '.join(getattr(other, '__notes__', ()))}")


def close_failed(engine: "Engine", depth: int = 0) -> list[BaseException]:
    """Deliver the end of whatever is open above ``depth``, decide nothing; return what failed in that."""
    errors: list[BaseException] = []
    while len(engine.scopes) > depth:
        scope = engine.scopes.pop()
        error = engine.slot(SCOPE_ENDS[scope]).fire_all(engine.run)
        errors += [error] if error is not None else []
    return errors


def returned(run: "Run") -> None:
    """The trainer has returned, without an error: raise what callbacks asked to be raised now, the first of several."""
    errors, run.engine.parting = run.engine.parting, []
    for other in errors[1:]:
        errors[0].add_note(f"then: {other!r}")
    if errors:
        raise errors[0]


def teardown(run: "Run") -> list[BaseException | None]:
    """Sum the training up and deliver ``teardown``, whatever cannot be told; return what failed."""
    raised: list[BaseException | None] = []
    try:
        run.past.append(summary(run))
    except Exception as failed:
        raised.append(failed)
    run.engine.orders.close()
    raised.append(run.engine.slot("teardown").fire_all(run))
    if run.past:
        late = {"notes": tuple(run.engine.notes), "failures": dict(run.engine.dispatcher.failures)}
        run.past[-1] = run.past[-1]._replace(**late)
    return raised


def close(run: "Run") -> None:
    """Let go of everything that belongs to this training alone."""
    engine = run.engine
    if engine.grammar_watch is not None:
        engine.grammar_watch.remove()
        engine.grammar_watch = None
    unwatch(engine)
    if run.folder is not None:
        run.folder.leave()
    run.roster.release()
    engine.in_training = engine.in_epoch = engine.in_batch = engine.in_validation = engine.in_val_batch = False
    engine.data = engine.outputs = engine.predicted = engine.trial = None
    engine.sinks = ()
    hurried = out_of_time(engine)
    for late in engine.requests.take_saves():
        when = ", and the training was left at once" if hurried else " when the training was over; ask in on_train_end"
        log().warning("%s asked for a checkpoint (%s)%s.", late.by, late.reason, when)
    engine.active = False


def tell(run: "Run") -> None:
    """Let those who wait for the summary have it, once every callback is done."""
    waiting, run.engine.when_over = run.engine.when_over, []
    for call in waiting:
        try:
            call()
        except Exception:
            log().exception("the summary of a training could not be shown")


def summary(run: "Run") -> Summary:
    """Return the training so far in numbers."""
    engine, dispatcher = run.engine, run.engine.dispatcher
    return Summary(
        name=run.name,
        dir=run.folder.path if run.folder is not None else None,
        epochs=len(engine.history),
        steps=engine.step,
        seconds=time.monotonic() - engine.started,
        end_reason=engine.end_reason,
        stop_reason=run.stop_reason,
        fitness=engine.fitness_rule.value,
        best_fitness=engine.fitness_rule.best,
        best_epoch=engine.fitness_rule.best_epoch,
        history=tuple(run.history),
        checkpoints=len(run.checkpoints),
        checkpoint_errors=engine.checkpoint_errors,
        failures=dict(dispatcher.failures),
        switched_off=tuple(sorted(dispatcher.switched_off)),
        costs={label: (count, spent / 1e9) for label, (count, spent) in dispatcher.costs.items()},
        notes=tuple(engine.notes),
    )
