"""CSVLogger: one row per epoch that pandas reads back whole."""

import math

import pandas
import pytest

from epochal.core import lifetime
from epochal.core.callback import Callback
from epochal.core.run import Run
from epochal.loggers.csv import CSVLogger
from epochal.runs.folder import RunFolder
from epochal.testing import simulate


def state_of(result):
    return {"run": result.run.engine.state_dict(), "callbacks": result.run.roster.states()}


def losses(*values):
    return [{"val/loss": value} for value in values]


def test_a_row_per_epoch_with_learning_rate_and_fitness(tmp_path):
    result = simulate([CSVLogger()], losses(3.0, 2.0, 1.0), batches=2, lr=(0.1, 0.2), dir=tmp_path)
    table = pandas.read_csv(result.run.dir / "metrics.csv")
    assert list(table["epoch"]) == [0, 1, 2]
    assert list(table["step"]) == [2, 4, 6]
    assert list(table["val/loss"]) == [3.0, 2.0, 1.0]
    assert list(table["fitness"]) == [-3.0, -2.0, -1.0]
    assert [name for name in table if name.startswith("lr/")] == [f"lr/{group}" for group in result.run.lr]
    assert (table["seconds"].diff()[1:] >= 0).all()


def test_late_columns_are_there_for_all_rows_and_missing_values_are_empty(tmp_path):
    simulate([CSVLogger("m.csv")], [{"val/loss": 3.0}, {"val/loss": 2.0, "late": 7.0}, {}, {"late": 8.0}], dir=tmp_path)
    table = pandas.read_csv("m.csv")
    assert list(table["val/loss"].fillna(-1)) == [3.0, 2.0, -1, -1]
    assert list(table["late"].fillna(-1)) == [-1, 7.0, -1, 8.0]
    assert list(table["fitness"].fillna(1)) == [-3.0, -2.0, 1, 1], "a fitness that was not measured is not repeated"


def test_what_a_later_callback_logs_at_the_end_of_the_epoch_is_in_the_row(tmp_path):
    class Late(Callback):
        def on_fit_epoch_end(self, run):
            run.log({"late": float(run.epoch)})

    simulate([CSVLogger("m.csv"), Late()], losses(1.0, 2.0), dir=tmp_path)
    assert list(pandas.read_csv("m.csv")["late"]) == [0.0, 1.0]


@pytest.mark.parametrize("value", [0.1, 1e-300, math.nan, math.inf, -math.inf, 1 / 3])
def test_values_come_back_exactly(value, tmp_path):
    simulate([CSVLogger("m.csv")], [{"x": value}], dir=tmp_path)
    back = pandas.read_csv("m.csv", float_precision="round_trip")["x"][0]
    assert back == value or (math.isnan(back) and math.isnan(value))


def test_names_with_commas_quotes_and_fixed_columns_are_no_trouble(tmp_path):
    simulate([CSVLogger("m.csv")], [{'a,"b"': 1.0, "epoch": 5.0, "ä": 2.0}], dir=tmp_path)
    table = pandas.read_csv("m.csv")
    assert table['a,"b"'][0] == 1.0
    assert (table["epoch"][0], table["metric/epoch"][0]) == (0, 5.0)


def test_a_resumed_training_appends_and_repeated_epochs_replace_their_rows(tmp_path):
    first = simulate([CSVLogger("m.csv")], losses(5.0, 4.0), dir=tmp_path)
    state = state_of(first)
    simulate([CSVLogger("m.csv")], losses(5.0, 4.0, 3.0, 2.0), dir=tmp_path, state=state)
    assert list(pandas.read_csv("m.csv")["val/loss"]) == [5.0, 4.0, 3.0, 2.0]
    simulate([CSVLogger("m.csv")], losses(5.0, 4.0, 30.0), dir=tmp_path, state=state)
    table = pandas.read_csv("m.csv")
    assert list(table["epoch"]) == [0, 1, 2]
    assert list(table["val/loss"]) == [5.0, 4.0, 30.0]


def test_a_torn_last_row_is_mended_when_a_training_is_resumed(tmp_path):
    first = simulate([CSVLogger("m.csv")], losses(5.0, 4.0), dir=tmp_path)
    with open("m.csv", "a") as file:
        file.write("2,3")
    simulate([CSVLogger("m.csv")], losses(5.0, 4.0, 3.0), dir=tmp_path, state=state_of(first))
    assert list(pandas.read_csv("m.csv")["val/loss"]) == [5.0, 4.0, 3.0]


def test_a_new_training_never_overwrites_an_older_file(tmp_path):
    for value in (1.0, 2.0, 3.0):
        simulate([CSVLogger("m.csv")], losses(value), dir=tmp_path)
    files = ["m.1.csv", "m.2.csv", "m.csv"]
    assert [pandas.read_csv(file)["val/loss"][0] for file in files] == [1.0, 2.0, 3.0]


def test_final_validation_stands_in_the_last_row(tmp_path):
    class FinalValidation(Callback):
        def on_train_end(self, run):
            run.engine.val_start()
            run.log({"val/loss": 0.5})
            run.engine.val_end()

    simulate([FinalValidation(), CSVLogger("m.csv")], losses(2.0, 1.0), dir=tmp_path)
    table = pandas.read_csv("m.csv")
    assert list(table["final/loss"].fillna(-1)) == [-1, 0.5]
    assert list(table["val/loss"]) == [2.0, 1.0]


def test_only_the_first_process_writes(tmp_path):
    run = Run(host="test", provides=frozenset(), folder=RunFolder(tmp_path / "runs", "r"))
    run.add(CSVLogger())
    run.engine.rank, run.engine.world_size = 1, 2
    lifetime.begin(run)
    run.engine.train_start(1)
    lifetime.finish(run)
    assert not (tmp_path / "runs").exists()


def test_an_epoch_that_a_checkpoint_has_and_the_killed_process_never_wrote_is_made_up_for(tmp_path):
    first = simulate([CSVLogger("m.csv")], losses(5.0, 4.0), dir=tmp_path)
    with open("m.csv") as file:
        rows = file.readlines()
    with open("m.csv", "w") as file:
        file.writelines(rows[:-1])
    simulate([CSVLogger("m.csv")], losses(5.0, 4.0, 3.0), dir=tmp_path, state=state_of(first))
    assert list(pandas.read_csv("m.csv")["val/loss"]) == [5.0, 4.0, 3.0]
