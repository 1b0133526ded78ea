"""The layers of a model and their parameters, as a table."""

import copy
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, final

from epochal.checkpointing.capture import random_state, restore_random_state, unwrapped
from epochal.core.callback import Callback
from epochal.core.errors import MissingExtra
from epochal.core.log import log

if TYPE_CHECKING:
    from epochal.core.run import Run


@final
class ModelSummary(Callback):
    """Write torchinfo's table of the model, its layers and parameters, when the training starts.

    >>> import torch
    >>> from epochal import Loop
    >>> summary = ModelSummary(input_size=(8, 3))
    >>> with Loop(model=torch.nn.Linear(3, 2), callbacks=[summary]) as run:
    ...     _ = list(run.epochs(1))
    >>> print(summary.text)
    =====...
    Layer (type:depth-idx)                   Output Shape              Param #
    =====...
    Linear                                   [8, 2]                    8
    =====...

    input_size
        The shape of an input, batch included, or a list of shapes; None: no forward pass, so no output shapes.
    options
        Passed on to ``torchinfo.summary``: ``depth=3``, ``col_names``, ``row_settings``, ``input_data`` ...

    The table is ``text``, ``model.txt`` in the run's folder, and at level INFO in the log. A forward pass is done with
    a copy of the model, whose memory is needed for a moment, and the random generators are set back: the training is
    the same, bit for bit. ``MissingExtra`` where torchinfo is not installed.
    """

    guarded = True

    def __init__(
        self,
        *,
        input_size: Sequence[int] | Sequence[Sequence[int]] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        if find_spec("torchinfo") is None:
            raise MissingExtra("torchinfo", "summary", "ModelSummary")
        self.input_size, self.options = input_size, options
        if name is not None:
            self.name = name
        self.text = ""

    def __repr__(self) -> str:
        return f"ModelSummary(input_size={self.input_size})"

    def on_train_start(self, run: "Run") -> None:
        """Make the table."""
        model = unwrapped(run.model)
        if run.rank:
            return
        if not hasattr(model, "named_modules"):
            log().warning("%s: %r is no model of PyTorch; there is no summary.", run.label(self), model)
            return
        self.text = self.summary(model)
        if run.folder is not None:
            (run.folder.make() / "model.txt").write_text(self.text + "\n", encoding="utf-8")
        log().info("%s:\n%s", run.label(self), self.text)

    def summary(self, model: Any) -> str:
        """Return torchinfo's table."""
        import torchinfo

        options: dict[str, Any] = {"verbose": 0, **self.options}
        if self.input_size is not None:
            options["input_size"] = self.input_size
        if not {"input_size", "input_data"} & options.keys():
            return str(torchinfo.summary(model, **options))
        options.setdefault("device", next((one.device for one in model.parameters()), None))
        state = random_state()
        try:
            return str(torchinfo.summary(copy.deepcopy(model), **options))
        finally:
            restore_random_state(state)
            torchinfo.torchinfo.clear_cached_forward_pass()  # it would keep the copy
