"""A fit that goes on from a checkpoint: Lightning loads ours as its own, and what it forgets is put back."""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from epochal.core.engine import Engine
from epochal.core.roster import Roster
from epochal.integrations.pytorch_resume import reload_states, tell_resumed

if TYPE_CHECKING:
    from epochal.integrations.lightning_data import Feed
    from epochal.integrations.lightning_state import TrainerState
    from epochal.integrations.lightning_values import Values
    from epochal.runs.resume import ResumePoint


class Resumption:
    """From where a fit goes on; its methods are asked at Lightning's moments, in their order."""

    def __init__(self, trainer: Any, point: "ResumePoint", state: "TrainerState", feed: "Feed") -> None:
        self.trainer, self.point, self.saved, self.state, self.feed = trainer, point, point.saved, state, feed
        self.inside = point.saved.manifest.batch is not None
        self.stands = self.reads = False

    def loading(self, original: Any) -> Any:
        """Give Lightning our checkpoint, where it would read one of its own."""
        ours = os.fspath(self.saved.path)

        def load_checkpoint(path: Any, *args: Any, **options: Any) -> Any:
            return self.state.checkpoint(self.saved) if path == ours else original(path, *args, **options)

        return load_checkpoint

    def checking(self, original: Any) -> Any:
        """Refuse another model's weights, once the module has had its say about them in ``on_load_checkpoint``."""

        def load_model_state_dict(checkpoint: Mapping[str, Any], *args: Any, **options: Any) -> Any:
            self.state.check_model(self.saved, checkpoint["state_dict"])
            return original(checkpoint, *args, **options)

        return load_model_state_dict

    def check(self) -> None:
        """Refuse another training's optimizers, before anything of theirs is loaded."""
        self.state.check_optimizers(self.saved)

    def stand(self) -> None:
        """Before the first epoch, put back what Lightning forgets: random numbers, the data, the values it shows."""
        if self.stands:
            return
        self.stands = True
        loop = self.trainer.fit_loop
        if not self.inside:  # Lightning would begin where it was restarted, which is inside its last epoch
            loop._restarting = loop._resuming_from_checkpoint = loop._loaded_from_state_dict = False
            loop.epoch_loop.restarting = False
        self.state.values.load_state_dict(self.saved.load("metrics"))
        self.feed.load_state_dict(self.saved.load("data"), self.saved.load("rng"), inside=self.inside)

    def enter(self, roster: Roster) -> None:
        """The epoch goes on: callbacks that begin something at its start did so before."""
        if self.inside and not self.reads:
            reload_states(roster, self.saved.load("callbacks"))

    def read(self, engine: Engine, fetcher: Any, begin: Callable[[Any], None]) -> bool:
        """Read the first epoch's data from where they stood, and say what is exact; False: it was done before."""
        if self.reads:
            return False
        self.reads = True
        self.feed.replace(fetcher, begin)
        self.state.put_gradients_back(self.saved)
        tell_resumed(self.saved, engine, self.feed.position)
        return True


def half_done(trainer: Any, feed: "Feed", values: "Values") -> bool:
    """Say whether something of Lightning's is half done at a batch's end: no training could go on from there."""
    loop = trainer.fit_loop.epoch_loop
    batches = loop.batch_progress.total
    stepped_later = any(one.reduce_on_plateau and one.interval == "step" for one in trainer.lr_scheduler_configs)
    return (
        trainer.world_size > 1
        or stepped_later
        or not feed.single
        or not values.can_go_on
        or batches.started != batches.ready  # one was skipped: Lightning would begin again one batch too early
        or loop._num_ready_batches_reached()
        or loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
    )
