"""Transformers' names of metrics, and Epochal's."""

from collections.abc import Iterable, Mapping
from typing import Any

EVAL = "eval_"
CLOCK = (  # how fast it went: another number each time, and no metric of the model
    "_runtime", "_samples_per_second", "_steps_per_second", "_tokens_per_second", "_model_preparation_time",
    "_jit_compilation_time",
)  # fmt: skip
OWN = frozenset({"loss", "learning_rate", "epoch", "step", "total_flos", "num_input_tokens_seen", "train_loss"})
GRAD_NORM = "grad_norm"


def canonical(native: str) -> str:
    """Return our name for one of Transformers' metrics; a name of the user's own stays.

    >>> canonical("eval_loss"), canonical("eval_news_f1"), canonical("grad_norm"), canonical("reward")
    ('val/loss', 'val/news_f1', 'train/grad_norm', 'reward')
    """
    if native.startswith(EVAL):
        return f"val/{native.removeprefix(EVAL)}"
    return f"train/{GRAD_NORM}" if native == GRAD_NORM else native


def aliases(natives: Iterable[str]) -> dict[str, str]:
    """Return what each of Transformers' names of a validation's metrics stands for.

    >>> aliases(["eval_loss", "reward"])
    {'eval_loss': 'val/loss'}
    """
    return {name: canonical(name) for name in natives if name.startswith(EVAL)}


def expected(args: Any, eval_dataset: Any) -> list[str]:
    """Return the names of metrics that are known before anything was measured."""
    named = eval_dataset if isinstance(eval_dataset, Mapping) else ()  # any other is not to be read here
    names = ["eval_loss", *(f"eval_{name}_loss" for name in named)]
    objective = objective_of(args)
    return names if objective is None else [*names, objective]


def objective_of(args: Any) -> str | None:
    """Return the full name of ``metric_for_best_model``.

    >>> from types import SimpleNamespace
    >>> objective_of(SimpleNamespace(metric_for_best_model="f1"))
    'eval_f1'
    """
    name = args.metric_for_best_model
    return name if name is None or name.startswith(EVAL) else f"{EVAL}{name}"


def translated(logs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Transformers logs by our names: without its clocks, and what the run knows better.

    >>> translated({"loss": 1.0, "learning_rate": 0.1, "grad_norm": 2.0, "reward": 3.0, "epoch": 1.0})
    {'train/grad_norm': 2.0, 'reward': 3.0}
    >>> translated({"eval_loss": 1.0, "eval_runtime": 0.1, "eval_labels": ["cat"]})
    {'val/loss': 1.0}
    """
    return {
        canonical(name): value
        for name, value in logs.items()
        if name not in OWN and not name.endswith(CLOCK) and "_mem_" not in name and is_number(value)
    }


def is_number(value: Any) -> bool:
    """Say whether a value is a number, or an array of one."""
    count = getattr(value, "numel", None)
    single = count() == 1 if callable(count) else getattr(value, "size", 1) == 1
    return single and hasattr(value, "__float__")
