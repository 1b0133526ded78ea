"""How far the presets agree with recorded decisions of the libraries: ``python -m tests.oracle_agreement DIR``.

DIR holds one file of JSON lines per library's class: a header, then {id, kind, opts, seq, dec}.
"""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from epochal import Checkpoint, EarlyStopping, ReduceLROnPlateau
from epochal.testing import simulate
from epochal.testing.simulate import Simulation

METRIC = "m"


class Compared(NamedTuple):
    """What a library did, and what ours did, by the name of what is compared."""

    theirs: dict[str, Any]
    ours: dict[str, Any]

    def differs(self) -> list[str]:
        """Return the names of what is not the same."""
        return [name for name, value in self.theirs.items() if self.ours[name] != value]


def number(value: Any) -> float | None:
    """Return a recorded value: NaN and infinities are strings."""
    return None if value is None else float(value)


def run(case: dict[str, Any], *callbacks: Any, metric: str = METRIC, lr: Any = 0.1) -> Simulation:
    """Put a case's sequence through a simulated training; a value that is null is not logged."""
    return simulate(callbacks, [{} if value is None else {metric: number(value)} for value in case["seq"]], lr=lr)


def rounded(lrs: list[Any]) -> list[Any]:
    """Return rates with the seven digits with which they are recorded."""
    return [[float(f"{one:.7g}") for one in rate] if isinstance(rate, tuple) else float(f"{rate:.7g}") for rate in lrs]


def keras_early_stopping(case: dict[str, Any]) -> Compared:
    opts, dec = dict(case["opts"]), case["dec"]
    restore = opts.pop("restore_best_weights")
    result = run(case, EarlyStopping(METRIC, compat="keras", restore_best=restore, **opts))
    return Compared(
        {"last": dec["last_epoch"], "stopped": dec["stopped"], "restored": dec["restored"]},
        {
            "last": result.epochs_run - 1,
            "stopped": result.end_reason == "stopped",
            "restored": result.restored,
        },
    )


def lightning_early_stopping(case: dict[str, Any]) -> Compared:
    result = run(case, EarlyStopping(METRIC, compat="lightning", **case["opts"]))
    dec = case["dec"]
    return Compared(
        {"last": dec["last_epoch"], "stopped": dec["stopped"]},
        {"last": result.epochs_run - 1, "stopped": result.end_reason == "stopped"},
    )


def hf_early_stopping(case: dict[str, Any]) -> Compared:
    opts, dec = case["opts"], case["dec"]
    mode = "max" if opts["greater_is_better"] else "min"
    stop = EarlyStopping(
        METRIC,
        mode=mode,
        patience=opts["early_stopping_patience"],
        min_delta=opts["early_stopping_threshold"],
        restore_best=opts["load_best_model_at_end"],
        compat="transformers",
    )
    save = Checkpoint(
        metric=METRIC,
        mode=mode,
        best_only=opts["save_strategy"] == "best",
        keep_last=opts["save_total_limit"],
        compat="transformers",
    )
    result = run(case, stop, save)
    best = dec["best_ckpt"] and int(dec["best_ckpt"].split("-")[1]) - 1
    restored = best if opts["load_best_model_at_end"] else None
    return Compared(
        {
            "last": dec["last_epoch"],
            "stopped": dec["stopped"],
            "saved": dec["saved_epochs"],
            "kept": [step - 1 for step in dec["kept_steps"]],
            "restored": restored,
        },
        {
            "last": result.epochs_run - 1,
            "stopped": result.end_reason == "stopped",
            "saved": result.saved,
            "kept": result.kept,
            "restored": result.restored,
        },
    )


def ultralytics_early_stopping(case: dict[str, Any]) -> Compared:
    opts, dec = case["opts"], case["dec"]
    stop = EarlyStopping("fitness", patience=opts["patience"], compat="ultralytics")
    save = Checkpoint(every_n_epochs=opts["save_period"], compat="ultralytics")
    result = run(case, stop, save, metric="fitness")
    best = run(case, stop, Checkpoint(best_only=True, compat="ultralytics"), metric="fitness")
    last, period = dec["last_epoch"], dec["period_epochs"]
    return Compared(
        {
            "last": last,
            "stopped": dec["stopped"],
            "saved": list(range(last + 1)),
            "kept": sorted({*dec["best_pt_epochs"][-1:], *period, last}),
            "best.pt": dec["best_pt_epochs"],
        },
        {
            "last": result.epochs_run - 1,
            "stopped": result.end_reason == "stopped",
            "saved": result.saved,
            "kept": result.kept,
            "best.pt": best.saved,
        },
    )


def keras_reduce_lr_on_plateau(case: dict[str, Any]) -> Compared:
    result = run(case, ReduceLROnPlateau(METRIC, compat="keras", **case["opts"]), lr=case["lr0"])
    return Compared({"lr": case["dec"]["lr"]}, {"lr": rounded(result.lrs)})


def torch_reduce_lr_on_plateau(case: dict[str, Any]) -> Compared:
    opts = dict(case["opts"])
    opts["min_delta"] = opts.pop("threshold")
    opts["relative"] = opts.pop("threshold_mode") == "rel"
    result = run(case, ReduceLROnPlateau(METRIC, compat="torch", **opts), lr=case["lr0"])
    return Compared({"lr": rounded([tuple(one) for one in case["dec"]["lr"]])}, {"lr": rounded(result.lrs)})


def keras_model_checkpoint(case: dict[str, Any]) -> Compared:
    opts, dec = case["opts"], case["dec"]
    result = run(
        case,
        Checkpoint(
            metric=METRIC,
            mode=opts["mode"],
            best_only=opts["save_best_only"],
            initial_best=opts["initial_value_threshold"],
            keep_last=-1 if "{" in case["template"] else 1,  # one file that is overwritten
            compat="keras",
        ),
    )
    kept = [case["template"].format(epoch=epoch + 1) for epoch in result.kept]
    return Compared(
        {"saved": dec["saved_epochs"], "kept": dec["kept"]}, {"saved": result.saved, "kept": sorted(set(kept))}
    )


def lightning_model_checkpoint(case: dict[str, Any]) -> Compared:
    opts, dec = case["opts"], case["dec"]
    result = run(
        case,
        Checkpoint(
            metric=METRIC if opts["monitor"] else None,
            mode=opts["mode"] if opts["monitor"] else None,
            keep_best=opts["save_top_k"],
            keep_last=1 if opts["save_last"] else 0,
            every_n_epochs=opts["every_n_epochs"],
            compat="lightning",
        ),
    )
    saved = sorted({epoch for epoch, _ in dec["saved"]})
    last = [epoch for epoch, name in dec["saved"] if name == "last"]
    kept = {int(name.removeprefix("epoch=")) for name in dec["kept"] if name != "last"}
    return Compared(
        {"saved": saved, "kept": sorted(kept | set(last[-1:]))}, {"saved": result.saved, "kept": result.kept}
    )


CASES: dict[str, Callable[[dict[str, Any]], Compared]] = {
    one.__name__: one
    for one in (
        hf_early_stopping,
        keras_early_stopping,
        keras_model_checkpoint,
        keras_reduce_lr_on_plateau,
        lightning_early_stopping,
        lightning_model_checkpoint,
        torch_reduce_lr_on_plateau,
        ultralytics_early_stopping,
    )
}


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the cases of a file, without its header."""
    with path.open() as lines:
        next(lines)
        yield from map(json.loads, lines)


def main(folder: Path) -> int:
    """Print the table; return 1 if a case differs, or there is none."""
    failed, found = 0, 0
    for name, compare in CASES.items():
        path = folder / f"{name}.jsonl"
        if not path.exists():
            print(f"{name:32} no file")
            continue
        cases = list(read(path))
        differ = [(case["id"], compared.differs(), compared) for case in cases if (compared := compare(case)).differs()]
        print(f"{name:32} {len(cases) - len(differ)} of {len(cases)}")
        for number, what, compared in differ[:3]:
            print(f"    case {number}: {what}: {compared}")
        failed, found = failed + bool(differ), found + len(cases)
    return int(failed > 0 or not found)


if __name__ == "__main__":
    logging.getLogger("epochal").setLevel("ERROR")
    sys.exit(main(Path(sys.argv[1])))
