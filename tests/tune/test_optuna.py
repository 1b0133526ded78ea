"""Prune decides as Optuna's own loop does, ends trainings gracefully, and outlives its storage."""

import copy
import logging
import pickle
import random
import shutil
import sqlite3
import warnings

import pytest

from epochal import Callback, Checkpoint, EarlyStopping, Loop
from epochal.core.errors import ArgumentError, CapabilityError, MetricNotFound
from epochal.testing import RecordEvents, simulate
from epochal.testing.check_callback import check_callback, check_resume, example_epochs

optuna = pytest.importorskip("optuna")
from epochal.tune.optuna import Prune  # noqa: E402

optuna.logging.set_verbosity(optuna.logging.ERROR)
METRIC = "val/accuracy"


class PruneAt(optuna.pruners.BasePruner):
    """Prunes every trial at one step, or never."""

    def __init__(self, step=None):
        self.step = step

    def prune(self, study, trial):
        return self.step is not None and trial.last_step >= self.step


def study_of(pruner=None, storage=None, direction="maximize"):
    return optuna.create_study(
        storage=storage,
        direction=direction,
        sampler=optuna.samplers.RandomSampler(seed=0),
        pruner=pruner or optuna.pruners.NopPruner(),
    )


def epochs_of(values, metric=METRIC):
    return [{metric: value} for value in values]


def outcomes(study):
    return [(trial.state.name, trial.value, trial.intermediate_values) for trial in study.trials]


# -- what is decided ---------------------------------------------------------------------------------------------


def random_curves(seed, number=25, length=12):
    rng = random.Random(seed)
    curves = []
    for _ in range(number):
        level, speed = rng.uniform(0.2, 1.0), rng.uniform(0.1, 1.0)
        curves.append([level * (1 - (1 - speed) ** (epoch + 1)) + rng.gauss(0, 0.05) for epoch in range(length)])
    curves[7][4] = curves[20][0] = float("nan")
    return curves


@pytest.mark.filterwarnings("ignore:All-NaN", "ignore:PatientPruner")
@pytest.mark.parametrize("direction", ["maximize", "minimize"])
@pytest.mark.parametrize(
    "pruner",
    [
        lambda: optuna.pruners.MedianPruner(n_startup_trials=3),
        lambda: optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=3, interval_steps=2),
        lambda: optuna.pruners.SuccessiveHalvingPruner(min_resource=2, reduction_factor=2),
        lambda: optuna.pruners.PatientPruner(None, patience=2),
    ],
    ids=["median", "median with a warm-up", "successive halving", "patient"],
)
def test_trials_are_pruned_where_optunas_own_loop_prunes_them(pruner, direction):
    curves, metric = random_curves(3), METRIC
    if direction == "minimize":
        curves, metric = [[1 - value for value in curve] for curve in curves], "val/error"

    def by_hand(trial):
        for step, value in enumerate(curves[trial.number]):
            trial.report(value, step)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    def by_prune(trial):
        curve = curves[trial.number]
        simulate([Prune(trial, metric)], epochs_of(curve, metric))
        return curve[-1]

    theirs, ours = study_of(pruner(), direction=direction), study_of(pruner(), direction=direction)
    theirs.optimize(by_hand, n_trials=len(curves))
    ours.optimize(by_prune, n_trials=len(curves))
    assert str(outcomes(ours)) == str(outcomes(theirs))  # as text: NaN is not equal to itself
    assert {trial.state.name for trial in ours.trials} == {"COMPLETE", "PRUNED"}


def test_one_value_per_epoch_is_reported_the_newest():
    class TwoValidations(Callback):
        def on_train_batch_end(self, run):
            run.engine.val_start(0)
            run.log({METRIC: 0.1})
            run.engine.val_end()

    trial = study_of().ask()
    simulate([TwoValidations(), Prune(trial, METRIC)], epochs_of([0.5, 0.6]))
    assert trial.study.trials[0].intermediate_values == {0: 0.5, 1: 0.6}


def test_epochs_that_measure_nothing_report_nothing():
    trial = study_of().ask()
    simulate([Prune(trial, METRIC, after=1)], [{}, {METRIC: 0.5}, {}, {METRIC: 0.7}])
    assert trial.study.trials[0].intermediate_values == {1: 0.5, 3: 0.7}


def test_a_fixed_trial_is_never_pruned():
    trial = optuna.trial.FixedTrial({})
    assert simulate([Prune(trial, METRIC)], epochs_of([0.5, 0.4])).epochs_run == 2


# -- how the training ends ---------------------------------------------------------------------------------------


def trained(callbacks, values, run_dir, **options):
    torch = pytest.importorskip("torch")
    with Loop(model=torch.nn.Linear(1, 1), callbacks=callbacks, dir=run_dir, **options) as run:
        for epoch in run.epochs(len(values)):
            for _ in run.batches([1, 2]):
                pass
            with run.validation():
                if isinstance(values[epoch], Exception):
                    raise values[epoch]
                run.log({METRIC: values[epoch]})
    return run


def test_the_loop_ends_as_after_any_stop_and_then_raises(run_dir):
    record, seen = RecordEvents(), []

    class Watch(Callback):
        def teardown(self, run):
            seen.append((run.end_reason, run.stop_reason, run.epoch))

    def objective(trial):
        trained([Prune(trial, METRIC), record, Watch()], [0.3, 0.2, 0.1, 0.0], run_dir)
        pytest.fail("a pruned objective went on behind its training")

    study = study_of(PruneAt(1))
    study.optimize(objective, n_trials=1)
    assert seen == [("stopped", "Prune(val/accuracy): trial pruned: val/accuracy 0.2 in epoch 2", 1)]
    assert record.events[-2:] == ["on_train_end", "teardown"]
    assert "on_exception" not in record.events
    assert outcomes(study) == [("PRUNED", 0.2, {0: 0.3, 1: 0.2})]


def test_the_error_says_why(run_dir):
    with pytest.raises(optuna.TrialPruned, match=r"val/accuracy 0.3 in epoch 1"):
        trained([Prune(study_of(PruneAt(0)).ask(), METRIC)], [0.3, 0.2], run_dir)


def test_an_error_of_the_training_is_not_hidden(run_dir):
    class FailAtTheEnd(Callback):
        def on_train_end(self, run):
            raise OSError("planted")

    with pytest.raises(OSError, match="planted"):
        trained([Prune(study_of(PruneAt(0)).ask(), METRIC), FailAtTheEnd()], [0.3, 0.2], run_dir)


def test_a_training_that_other_callbacks_stop_returns_its_value(run_dir):
    def objective(trial):
        trained([Prune(trial, METRIC), EarlyStopping(METRIC, patience=1)], [0.3, 0.2, 0.1], run_dir)
        return 0.3

    study = study_of(PruneAt(2))
    study.optimize(objective, n_trials=1)
    assert outcomes(study) == [("COMPLETE", 0.3, {0: 0.3, 1: 0.2})]


def test_the_next_training_of_the_same_object_is_not_pruned_before_it_begins():
    prune = Prune(study_of(PruneAt(1)).ask(), METRIC)
    with pytest.raises(optuna.TrialPruned):
        simulate([prune], epochs_of([0.1, 0.2, 0.3]))
    assert simulate([prune], epochs_of([0.1, 0.2])).epochs_run == 2


# -- resumed trainings -------------------------------------------------------------------------------------------


def test_a_resumed_training_reports_every_step_once(run_dir):
    trial = study_of().ask()
    policies = [Prune(trial, METRIC), Checkpoint()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(OSError, match="planted"):
            trained(policies, [0.1, 0.2, OSError("planted")], run_dir, name="t")
        shutil.rmtree(next(run_dir.glob("t/checkpoints/epoch-0001*")))  # the second epoch comes again
        run = trained(policies, [0.1, 0.9, 0.3, 0.4], run_dir, name="t", resume=True)
    assert [row[METRIC] for row in run.history] == [0.1, 0.9, 0.3, 0.4]
    assert trial.study.trials[0].intermediate_values == {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.4}


def test_a_pruned_training_that_is_resumed_stays_pruned(run_dir):
    for epochs_left in (True, False):
        trial = study_of(PruneAt(1)).ask()
        for resume in (False, True):
            values = [0.3, 0.2, 0.1, 0.0] if epochs_left else [0.3, 0.2]
            with pytest.raises(optuna.TrialPruned, match="in epoch 2"):
                trained([Prune(trial, METRIC), Checkpoint()], values, run_dir, name=f"t{epochs_left}", resume=resume)
        assert trial.study.trials[0].intermediate_values == {0: 0.3, 1: 0.2}


def test_several_trainings_in_one_trial_report_the_first_and_warn_of_nothing():
    trial = study_of().ask()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for fold in (0.0, 0.5):
            simulate([Prune(trial, METRIC)], epochs_of([fold, fold + 0.1]))
    assert trial.study.trials[0].intermediate_values == {0: 0.0, 1: 0.1}


# -- a storage that fails ----------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path):
    (tmp_path / "storage").mkdir()
    return tmp_path / "storage" / "study.db"


def sqlite_trial(database, timeout, pruner=None):
    storage = optuna.storages.RDBStorage(f"sqlite:///{database}", engine_kwargs={"connect_args": {"timeout": timeout}})
    return study_of(pruner, storage).ask()


class At(Callback):
    """Does something at the end of one epoch."""

    def __init__(self, epoch, act):
        self.epoch, self.act = epoch, act

    def on_fit_epoch_end(self, run):
        if run.epoch == self.epoch:
            self.act()


@pytest.fixture
def lock(database):
    """Another program's connection that holds the whole database, from `lock()` to `lock.rollback()`."""
    connections = []

    class Lock:
        def __call__(self):
            connections.append(sqlite3.connect(database, isolation_level=None))
            connections[-1].execute("BEGIN EXCLUSIVE")

        def release(self):
            while connections:
                connections.pop().close()

    yield (held := Lock())
    held.release()


def notes(result):
    return [note for note in result.run.past[-1].notes if "Optuna" in note]


def test_a_locked_storage_does_not_stop_the_training(database, lock, caplog):
    trial = sqlite_trial(database, timeout=0.05, pruner=PruneAt(2))
    with caplog.at_level(logging.INFO, logger="epochal"):
        result = simulate([At(1, lock), Prune(trial, METRIC)], epochs_of([0.1] * 10))
    assert (result.epochs_run, result.end_reason) == (10, "completed")
    said = [record for record in caplog.records if "goes on unpruned" in record.getMessage()]
    assert len(said) == 1
    assert said[0].exc_info is not None
    (note,) = notes(result)
    # Epoch 0 was answered; from epoch 1 on nothing was.
    assert note.startswith("Prune(val/accuracy): Optuna's storage did not answer 9 of 10 times (StorageInternalError(")
    assert note.endswith("; 9 values not stored")
    lock.release()
    assert trial.study.trials[0].intermediate_values == {0: 0.1}


def test_values_wait_for_a_storage_that_comes_back(database, lock):
    trial = sqlite_trial(database, timeout=0.05, pruner=PruneAt(6))
    callbacks = [At(1, lock), At(4, lock.release), Prune(trial, METRIC)]
    with pytest.raises(optuna.TrialPruned):
        simulate(callbacks, epochs_of([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]))
    stored = trial.study.trials[0].intermediate_values
    assert stored == {epoch: epoch / 10 for epoch in range(7)}


def test_a_storage_that_hangs_is_waited_for_so_long_and_no_longer(database, lock):
    trial = sqlite_trial(database, timeout=200.0)  # sqlite would wait that long
    result = simulate([At(1, lock), Prune(trial, METRIC, timeout=0.1)], epochs_of([0.1] * 5))
    assert result.end_reason == "completed"
    (note,) = notes(result)
    assert "did not answer 4 of 5 times" in note


def remove_folder(database):
    shutil.rmtree(database.parent)


def test_a_storage_whose_folder_is_removed_does_not_stop_the_training(database):
    trial = sqlite_trial(database, timeout=0.05, pruner=PruneAt(2))
    result = simulate([At(1, lambda: remove_folder(database)), Prune(trial, METRIC)], epochs_of([0.1] * 5))
    assert (result.epochs_run, result.end_reason) == (5, "completed")
    assert len(notes(result)) == 1


def test_a_journal_whose_folder_is_removed_does_not_stop_the_training(database):
    backend = optuna.storages.journal.JournalFileBackend(str(database))
    trial = study_of(PruneAt(2), optuna.storages.JournalStorage(backend)).ask()
    callbacks = [At(1, lambda: remove_folder(database)), Prune(trial, METRIC, timeout=0.5)]
    result = simulate(callbacks, epochs_of([0.1] * 5))
    assert (result.epochs_run, result.end_reason) == (5, "completed")
    assert len(notes(result)) == 1


def test_a_loop_trains_on_too(database, lock, run_dir):
    trial = sqlite_trial(database, timeout=0.05, pruner=PruneAt(2))
    lock()
    assert trained([Prune(trial, METRIC)], [0.1, 0.2, 0.3], run_dir).end_reason == "completed"


def test_a_trial_that_was_ended_elsewhere_does_not_stop_the_training():
    study = study_of(PruneAt(2))
    trial = study.ask()
    study.tell(trial, state=optuna.trial.TrialState.FAIL)  # as a heartbeat does that was missed
    result = simulate([Prune(trial, METRIC)], epochs_of([0.1] * 5))
    assert result.end_reason == "completed"
    assert "has already finished" in notes(result)[0]


def test_sqlite_in_memory_lives_on_one_thread():
    trial = study_of(PruneAt(1), "sqlite:///:memory:").ask()
    with pytest.raises(optuna.TrialPruned):
        simulate([Prune(trial, METRIC, timeout=None)], epochs_of([0.1] * 5))


# -- what every callback promises ----------------------------------------------------------------------------------


def test_keeps_what_every_callback_promises():
    check_callback(lambda: Prune(study_of().ask(), METRIC))
    check_callback(lambda: Prune(study_of().ask(), METRIC, name="mine"))


def test_interrupted_anywhere_it_prunes_at_the_same_epoch():
    epochs = example_epochs()

    class Caught(Callback):  # Optuna's error would end the suite's trainings
        def teardown(self, run):
            run.engine.parting.clear()

    def make():
        prune = Prune(study_of(PruneAt(7)).ask(), METRIC)
        prune.implies = lambda: (Caught(),)
        return prune

    for epoch in range(7):
        check_resume(make, epochs, 2, epoch)


def test_copies_report_to_the_same_trial(database):
    prune = Prune(sqlite_trial(database, timeout=5), METRIC)
    simulate([prune], epochs_of([0.1]))
    for value, copied in enumerate([copy.deepcopy(prune), pickle.loads(pickle.dumps(prune))], start=2):
        simulate([copied], epochs_of([0.1] * value))
    assert prune.trial.study.trials[0].intermediate_values == {0: 0.1, 1: 0.1, 2: 0.1}


def test_shows_what_it_is():
    prune = Prune(study_of().ask(), METRIC)
    assert repr(prune) == "Prune(trial 0, 'val/accuracy')"
    assert prune.name == Prune(trial=study_of().ask(), metric=METRIC).name == "Prune(val/accuracy)"


# -- what cannot work ------------------------------------------------------------------------------------------------


def test_a_metric_that_nobody_measures_is_an_error():
    with pytest.raises(MetricNotFound, match=r"did you mean 'val/accuracy'.*Prune\(trial 0, 'val/acuracy'\) needs it"):
        simulate([Prune(study_of().ask(), "val/acuracy")], epochs_of([0.1, 0.2]))
    with pytest.raises(MetricNotFound):
        simulate([Prune(study_of().ask(), METRIC, after=2)], [{}, {}, {}, {METRIC: 0.1}])


def test_the_wrong_direction_is_an_error():
    with pytest.raises(ArgumentError, match=r'minimizes, but .* is good when it is high.*direction="maximize"'):
        Prune(optuna.create_study().ask(), METRIC)
    with pytest.raises(ArgumentError, match=r'maximizes, but .* is good when it is low.*mode="max"'):
        Prune(study_of().ask(), "val/loss")
    with pytest.raises(ArgumentError, match="so the best trials would be pruned"):
        Prune(study_of().ask(), "val/x", mode="min")
    Prune(study_of().ask(), "val/likelihood_error", mode="max")
    Prune(study_of().ask(), "val/x")


def test_several_objectives_are_an_error():
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(ArgumentError, match="2 objectives, and Optuna cannot prune such"):
        Prune(study.ask(), METRIC)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trial": None}, "trial must be the one that Optuna gives the objective, not None"),
        ({"trial": METRIC}, "trial must be"),
        ({"metric": 3}, "metric must be the name"),
        ({"mode": "high"}, "mode must be"),
        ({"after": -1}, "after must be"),
        ({"timeout": 0}, "timeout must be"),
    ],
    ids=str,
)
def test_wrong_arguments_are_errors(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        Prune(**{"trial": study_of().ask(), "metric": METRIC, **arguments})


def test_several_processes_are_an_error():
    class Two(Callback):
        def on_train_start(self, run):
            run.engine.world_size = 2

    with pytest.raises(CapabilityError, match="one process per trial; this training has 2"):
        simulate([Two(), Prune(study_of().ask(), METRIC)], epochs_of([0.1]))
