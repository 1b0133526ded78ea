"""Ultralytics without the network: its switches, its settings and its font, for this process."""

import logging
import os
import shutil
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from epochal.core.errors import AttachError, MissingExtra

# Integrations that report elsewhere are off: a demo and a test tell nobody, and wait for nobody.
QUIET_SETTINGS: Mapping[str, bool] = {
    "sync": False,
    "mlflow": False,
    "tensorboard": False,
    "wandb": False,
    "clearml": False,
    "comet": False,
    "dvc": False,
    "raytune": False,
    "vscode_msg": False,
}
SWITCHES: Mapping[str, str] = {
    "YOLO_OFFLINE": "True",
    "YOLO_AUTOINSTALL": "False",
    "WANDB_MODE": "disabled",
}


def ultralytics_offline(folder: str | Path, **settings: str | bool) -> Path:
    """Import Ultralytics so that it neither asks the network nor touches the user's own settings.

    Its configuration lives in ``folder`` from now on, for this process and those that it starts. Must be called
    before anything has imported Ultralytics, which reads its environment once.

    Args:
        folder: where settings and the font are kept; made if it is not there.
        **settings: Ultralytics' own settings, as ``datasets_dir="data"``, beside or instead of ``QUIET_SETTINGS``.

    Returns:
        The folder that Ultralytics uses, inside ``folder``.

    Raises:
        AttachError: when Ultralytics is already imported with another configuration.
        MissingExtra: when it is not installed.
    """
    config = Path(folder).resolve() / "Ultralytics"
    _refuse_if_imported(config)
    config.mkdir(parents=True, exist_ok=True)
    _provide_font(config / "Arial.ttf")
    os.environ.update({**SWITCHES, "YOLO_CONFIG_DIR": str(config.parent)})
    with _silence():
        try:
            from ultralytics.utils import SETTINGS
        except ImportError as error:
            raise MissingExtra("ultralytics", "yolo", "training YOLO") from error
        SETTINGS.update({**QUIET_SETTINGS, **settings})
    return config


def _refuse_if_imported(config: Path) -> None:
    loaded = sys.modules.get("ultralytics.utils")
    in_use = getattr(loaded, "USER_CONFIG_DIR", None)
    if in_use is not None and Path(in_use).resolve() != config:
        raise AttachError(
            f"Ultralytics is already imported and uses {in_use}; call ultralytics_offline() before its first import"
        )


def _provide_font(target: Path) -> None:
    """Put matplotlib's own font where Ultralytics would otherwise download one to."""
    if target.exists():
        return
    try:
        from matplotlib import get_data_path
    except ImportError as error:
        raise MissingExtra("matplotlib", "demo", "training YOLO without the network") from error
    shutil.copyfile(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", target)


@contextmanager
def _silence() -> Generator[None]:
    """Keep back the greeting that Ultralytics logs when it makes its settings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
