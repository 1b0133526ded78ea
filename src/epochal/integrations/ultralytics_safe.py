"""Which descriptions of a YOLO model may be built: Ultralytics evaluates and calls what stands in one."""

import re
from collections.abc import Mapping
from typing import Any

HOME = "ultralytics.nn.tasks"  # where the classes are that a checkpoint may name: nothing else is looked up
ACTIVATION = re.compile(r"(torch\.)?nn\.\w+\([\w\s.,=+-]*\)")  # as torch.nn.LeakyReLU(0.1): one call, plain values


def refusal(said: Mapping[str, Any]) -> str | None:
    """Return what makes a description one that is not built, None if nothing does.

    ``said``: the ``class``, its ``module``, and the ``yaml`` it is built from. A class must be a model of Ultralytics',
    a layer one of torch's, torchvision's or Ultralytics' modules, an activation a module with plain values.

    >>> refusal({"module": "os", "class": "system", "yaml": {}})
    'os.system'
    """
    what = f"{said.get('module')}.{said.get('class')}"
    if said.get("module") != HOME or not isinstance(said.get("yaml"), Mapping):
        return what
    from ultralytics.nn import tasks

    kind = getattr(tasks, str(said["class"]), None)
    if not (isinstance(kind, type) and issubclass(kind, tasks.BaseModel)):
        return what
    plan = said["yaml"]
    activation = plan.get("activation")
    if activation and not (isinstance(activation, str) and ACTIVATION.fullmatch(activation)):
        return f"{what} with the activation {activation!r}"
    layers = (*plan.get("backbone", ()), *plan.get("head", ()))
    bad = next((layer[2] for layer in layers if not is_layer(layer[2])), None)
    return None if bad is None else f"{what} with the layer {bad!r}"


def is_layer(name: object) -> bool:
    """Say whether a layer's name in a model's YAML is that of a module, and not of a function.

    >>> is_layer("nn.Upsample"), is_layer("Conv"), is_layer("torch_safe_load"), is_layer(3)
    (True, True, False, False)
    """
    if not isinstance(name, str):
        return False
    import torch
    from ultralytics.nn import tasks

    if name.startswith("nn."):
        found = getattr(torch.nn, name[3:], None)
    elif name.startswith("torchvision.ops."):
        from torchvision import ops

        found = getattr(ops, name.removeprefix("torchvision.ops."), None)
    else:
        found = vars(tasks).get(name)
    return isinstance(found, type) and issubclass(found, torch.nn.Module)
