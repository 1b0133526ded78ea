"""Real traces of YOLO trainings obey the grammar."""

import pytest

from epochal import Callback, attach
from epochal.testing import RecordEvents, check_events

EPOCH = ["on_train_epoch_start"]
STEP = ["optimizer_step", "on_before_zero_grad"]
BATCH = ["on_train_batch_start", *STEP, "on_train_batch_end"]
VAL = ["on_val_start", "on_val_batch_start", "on_val_batch_end", "on_val_end"]


def test_a_normal_training_is_what_the_grammar_says(yolo, quick):
    model, record = yolo(), RecordEvents()
    run = attach(model, record)
    model.train(**quick())
    check_events(record.events)
    epoch = ["on_train_epoch_start", *BATCH, *BATCH, "on_train_epoch_end", *VAL, "on_model_save", "on_fit_epoch_end"]
    assert record.events == [
        "on_pretrain_routine_start", "on_pretrain_routine_end", "on_train_start", *epoch, *epoch, *VAL, "on_train_end", "teardown",
    ]  # fmt: skip
    assert (run.end_reason, run.epoch, run.step, len(run.history)) == ("completed", 1, 4, 2)
