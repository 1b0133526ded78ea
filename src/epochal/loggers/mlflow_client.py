"""MLflow's client as a logger needs it: no endless waiting, no telemetry, no traces in the user's environment."""

import importlib
import json
import math
import os
import re
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

# MLflow's own defaults make one call wait 120 s and try 7 times.
HTTP_LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
}
SILENCE = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
TELEMETRY = "MLFLOW_DISABLE_TELEMETRY"
_local = threading.local()  # .quick: calls of this thread are a logger's
_loading = threading.Lock()


def load() -> Any:
    """Import mlflow (seconds; call it off the training thread), with its telemetry off if we are the first to do so."""
    with _loading:
        if "mlflow.environment_variables" in sys.modules:
            return importlib.import_module("mlflow")
        set_by_us = TELEMETRY not in os.environ
        if set_by_us:
            os.environ[TELEMETRY] = "true"
        try:
            return importlib.import_module("mlflow")
        finally:
            if set_by_us:
                os.environ.pop(TELEMETRY, None)


@contextmanager
def quick_calls() -> Generator[None]:
    """Give up soon on a server that does not answer, in this thread only; what the user's environment says holds."""
    variables = importlib.import_module("mlflow.environment_variables")
    for name, value in HTTP_LIMITS.items():
        limit(getattr(variables, name, None), value)
    silence(getattr(variables, SILENCE, None))
    _local.quick = True
    try:
        yield
    finally:
        _local.quick = False


def silence(variable: Any) -> None:
    """Keep MLflow from printing addresses in a logger's calls, where the environment does not say otherwise."""
    usual = getattr(variable, "get", None)
    if usual is None or getattr(usual, "epochal", False):
        return

    def get() -> Any:
        return True if getattr(_local, "quick", False) and SILENCE not in os.environ else usual()

    get.epochal = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    variable.get = get


def limit(variable: Any, value: str) -> None:
    """Make one of MLflow's variables read ``value`` in a logger's calls, where the environment does not set it."""
    raw = getattr(variable, "get_raw", None)
    if raw is None or getattr(raw, "epochal", False):
        return

    def get_raw() -> str | None:
        found: str | None = raw()
        return value if found is None and getattr(_local, "quick", False) else found

    get_raw.epochal = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
    variable.get_raw = get_raw


def configured_uri() -> str | None:
    """Return the tracking URI that the environment or ``mlflow.set_tracking_uri`` names, or None.

    MLflow is not imported for it: who has called ``set_tracking_uri`` has imported it.
    """
    mlflow: Any = sys.modules.get("mlflow")
    if mlflow is not None and getattr(mlflow, "is_tracking_uri_set", bool)():
        return str(mlflow.get_tracking_uri())
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def without_password(uri: str) -> str:
    """Return an address as it may be kept and shown.

    >>> without_password("http://me:secret@host:5000"), without_password("sqlite:////data/mlflow.db")
    ('http://me:***@host:5000', 'sqlite:////data/mlflow.db')
    """
    return re.sub(r"(://[^/\s:@]*):[^/\s@]+@", r"\1:***@", uri)


def store_folder(run_dir: Path) -> Path:
    """Return the folder of the embedded store: one for all runs, so that they can be compared.

    It is the nearest folder called ``runs`` above the run's, else the folder that the run's own lies in.

    >>> store_folder(Path("/data/runs/detect/train-2/epochal")).as_posix()
    '/data/runs'
    >>> store_folder(Path("/data/out/digits")).as_posix(), store_folder(Path("/data/yolo/train/epochal")).as_posix()
    ('/data/out', '/data/yolo')
    """
    for parent in run_dir.parents:
        if parent.name == "runs":
            return parent
    return run_dir.parent.parent if run_dir.name == "epochal" else run_dir.parent


def client_of(uri: str) -> Any:
    """Return a client for a tracking URI.

    MLflow makes a folder ``mlruns`` in the working directory for every database; an empty one is removed again.
    """
    mlflow = load()
    stray = Path("mlruns")
    before = stray.exists()
    client = mlflow.MlflowClient(tracking_uri=uri)
    if uri.startswith("sqlite:"):
        client.search_experiments(max_results=1)
        if not before:
            remove_empty(stray)
    return client


class Value(NamedTuple):
    """A metric's value as MLflow keeps it; ``timestamp`` in milliseconds since 1970."""

    key: str
    value: float
    timestamp: int
    step: int


def log_values(client: Any, run_id: str, values: Sequence[Value]) -> None:
    """Send at most 1,000 values of metrics.

    To a server they go as plain JSON through the client's own connection: its own way makes two objects of each value
    first, holds Python's lock six times as long, and the training has to wait for that.
    """
    store: Any = getattr(getattr(client, "_tracking_client", None), "store", None)
    if not sends_json(store):
        entities = importlib.import_module("mlflow.entities")
        client.log_batch(run_id, metrics=[entities.Metric(*value) for value in values], synchronous=True)
        return
    api = importlib.import_module("mlflow.protos.service_pb2").LogBatch
    metrics = [
        {"key": key, "value": as_json_number(value), "timestamp": timestamp, "step": step}
        for key, value, timestamp, step in values
    ]
    store._call_endpoint(api, json.dumps({"run_id": run_id, "metrics": metrics}))


def sends_json(store: Any) -> bool:
    """Say whether a client's store is MLflow's own of servers."""
    try:
        usual = importlib.import_module("mlflow.store.tracking.rest_store").RestStore
    except (ImportError, AttributeError):
        return False
    kind = type(store)
    return isinstance(store, usual) and all(
        getattr(kind, name, None) is getattr(usual, name, False) for name in ("log_batch", "_call_endpoint")
    )


def as_json_number(value: float) -> float | str:
    """Return a number as protocol buffers' JSON has it; source: protobuf.dev, ProtoJSON format.

    >>> as_json_number(0.5), as_json_number(float("nan")), as_json_number(float("-inf"))
    (0.5, 'NaN', '-Infinity')
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")


def remove_empty(folder: Path) -> None:
    """Remove a folder if nothing is in it."""
    try:
        folder.rmdir()
    except OSError:
        return
