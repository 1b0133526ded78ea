"""Ultralytics without the network: its switches, its settings and its font, for this process and those it starts."""

import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from epochal.core.errors import AttachError

SWITCHES: Mapping[str, str] = {"YOLO_OFFLINE": "True", "YOLO_AUTOINSTALL": "False", "WANDB_MODE": "disabled"}
# All settings of Ultralytics 8.4, as it completes and rewrites a shorter list with a warning.
# Integrations that report elsewhere are off: a demo and a test tell nobody, and wait for nobody.
SETTINGS: Mapping[str, str | bool] = {
    "settings_version": "0.0.8",
    "datasets_dir": "datasets",
    "weights_dir": "weights",
    "runs_dir": "runs",
    "uuid": "",
    "sync": False,
    "api_key": "",
    "openai_api_key": "",
    "clearml": False,
    "comet": False,
    "dvc": False,
    "mlflow": False,
    "raytune": False,
    "tensorboard": False,
    "wandb": False,
    "vscode_msg": False,
    "openvino_msg": False,
}


def ultralytics_offline(folder: str | Path, **settings: str | bool) -> Path:
    """Make Ultralytics, when it is imported, neither ask the network nor touch the user's own settings.

    Its configuration lives in ``folder`` from now on. Nothing is imported here; Ultralytics reads its environment
    and these settings once, at its first import, so this comes before.

    Args:
        folder: where settings and the font are kept; made if it is not there.
        **settings: Ultralytics' own settings, as ``datasets_dir="data"``, in the place of ``SETTINGS``.

    Returns:
        The folder that Ultralytics uses, inside ``folder``.

    Raises:
        AttachError: when Ultralytics is already imported.
    """
    if "ultralytics.utils" in sys.modules:
        in_use = getattr(sys.modules["ultralytics.utils"], "USER_CONFIG_DIR", "its own configuration")
        raise AttachError(f"Ultralytics is already imported, with {in_use}; call ultralytics_offline() before that")
    config = Path(folder).resolve() / "Ultralytics"
    config.mkdir(parents=True, exist_ok=True)
    (config / "settings.json").write_text(json.dumps({**SETTINGS, **settings}, indent=2))
    _provide_font(config / "Arial.ttf")
    os.environ.update({**SWITCHES, "YOLO_CONFIG_DIR": str(config.parent)})
    return config


def _provide_font(target: Path) -> None:
    """Put matplotlib's own font where Ultralytics would otherwise download one to."""
    found = find_spec("matplotlib")
    if found is None or found.origin is None or target.exists():
        return
    shutil.copyfile(Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf", target)
