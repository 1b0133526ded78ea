"""MLflow: an embedded SQLite store, or the server that is configured."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

from epochal.core.errors import MissingExtra
from epochal.core.host import Record
from epochal.loggers.base import About, Logger
from epochal.loggers.curves import Curves
from epochal.loggers.mlflow_artifacts import Artifacts
from epochal.loggers.mlflow_client import (
    Value,
    client_of,
    configured_uri,
    load,
    log_values,
    quick_calls,
    store_folder,
    without_password,
)
from epochal.loggers.mlflow_names import safe
from epochal.loggers.worker import Limits, first_line

if TYPE_CHECKING:
    from epochal.core.run import Run

logger = logging.getLogger("epochal")
STATUS = {
    "completed": "FINISHED",
    "stopped": "FINISHED",
    "exception": "FAILED",
    "interrupted": "KILLED",
    "preempted": "KILLED",
    "crashed": "FAILED",  # nobody was left to say more: kill -9, no memory, no power
}
PASSING = frozenset(
    {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED", "ABORTED"}
    | {
        "UNAUTHENTICATED",
        "PERMISSION_DENIED",
        "ENDPOINT_NOT_FOUND",
        "RESOURCE_DOES_NOT_EXIST",
    }  # of the server, no record
)
LONGEST_PARAM = 6000  # characters, MLflow's own limit
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100  # of one log_batch, MLflow's own limits


class MLflowLogger(Logger):
    """Log to MLflow: metrics over ``run.step``, hyper-parameters, images and texts as artifacts, and a truthful end.

    Where: ``uri``, else what ``MLFLOW_TRACKING_URI`` or ``mlflow.set_tracking_uri`` says, else an embedded SQLite store
    shared by all runs, ``runs/mlflow.db`` (``mlflow ui --backend-store-uri sqlite:///runs/mlflow.db`` shows it). Under
    which names: ``experiment`` (default ``MLFLOW_EXPERIMENT_NAME``, else "epochal"), ``run_name`` (default the run's
    name), ``tags``. A resumed training goes on in the same MLflow run. Characters that MLflow does not allow in a
    metric's name become "_". Runs end as FINISHED (completed, stopped), FAILED (exception) or KILLED (interrupted,
    preempted), also where the training was killed. A server that does not answer is tried again and never waited for.
    Where the run has a store all of this is done in a process of its own, which a class derived from this one asks for
    with ``apart = True``, and ``epochal sync RUN`` brings what the server lacks at the end. ``flush_limit`` is in
    seconds, by default 20 for a server and 60 for the embedded store, whose making takes some seconds. MissingExtra
    where mlflow is not installed.

    >>> MLflowLogger(experiment="digits").replaces
    frozenset({'mlflow'})
    """

    replaces: ClassVar[frozenset[str]] = frozenset({"mlflow"})
    destination: ClassVar[str] = "mlflow"
    limits: ClassVar[Limits] = Limits(pause=1.0)
    apart: ClassVar[bool] = True

    def __init__(
        self,
        uri: str | None = None,
        *,
        experiment: str | None = None,
        run_name: str | None = None,
        tags: Mapping[str, str] | None = None,
        keep_native: bool = False,
        flush_limit: float | None = None,
        name: str | None = None,
    ) -> None:
        remote = uri or configured_uri()
        if flush_limit is None:
            flush_limit = 20.0 if remote is not None and remote.startswith("http") else 60.0
        if uri is not None:  # names are shown and kept
            object.__setattr__(self, "_first_argument", without_password(uri))
        super().__init__(keep_native=keep_native, flush_limit=flush_limit, name=name)
        if find_spec("mlflow") is None:
            raise MissingExtra("mlflow", "mlflow", "MLflowLogger")
        self.uri, self.experiment, self.run_name = uri, experiment, run_name
        self.tags = dict(tags or {})
        self.run_id: str | None = None
        self.artifacts = Artifacts()

    def state_dict(self) -> dict[str, Any]:
        """Return the MLflow run's id: a resumed training goes on in it."""
        return {"run_id": self.run_id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back the MLflow run's id."""
        self.run_id = state["run_id"]

    def on_train_start(self, run: "Run") -> None:
        """Begin to listen; the store of artifacts has its chances anew."""
        self.artifacts = Artifacts()
        super().on_train_start(run)

    def options(self) -> dict[str, Any]:
        """Return where and under which names it logs."""
        uri = self.uri or configured_uri()
        experiment = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME")
        return {
            "uri": None if uri is None else without_password(uri), "experiment": experiment, "run_name": self.run_name,
            "tags": self.tags,
        }  # fmt: skip

    def private(self) -> dict[str, Any]:
        """Return the address as it is, with its password."""
        return {"uri": self.uri or configured_uri()}

    def needs_folder(self) -> bool:
        """Say whether the run's folder is wanted: for the embedded store only."""
        return (self.uri or configured_uri()) is None

    def is_passing(self, error: Exception) -> bool:
        """Say whether a server may recover from this: no connection, 429 and 5xx, a locked database."""
        return may_pass(error)

    def open(self, about: About) -> "MLflowWriter":
        """Find or make experiment and run."""
        load()
        uri, artifacts = self.uri or configured_uri(), None
        if uri is None:
            folder = store_folder(about.place(None, "", "MLflowLogger a uri, or").absolute())
            uri, artifacts = f"sqlite:///{folder.as_posix()}/mlflow.db", (folder / "mlartifacts").as_uri()
        told = about.told if about.told.get("uri") == without_password(uri) else {}
        run_id = told.get("run_id") or self.run_id
        with quick_calls():
            client = client_of(uri)
            begins = run_id is None or not taken_up(client, run_id)
            if begins:
                run_id = self.make_run(client, about, artifacts)
            self.run_id = run_id
            known = client.get_run(run_id).data.params if about.resumed or about.stored else {}
        writer = MLflowWriter(client, str(run_id), known, self.artifacts, uri=without_password(uri), ended=about.ended)
        writer.begins = begins or (bool(about.told) and not told)  # of another server too
        writer.curves.load_state_dict({} if writer.begins else told.get("curves", {}))
        return writer

    def make_run(self, client: Any, about: About, artifacts: str | None) -> str:
        """Make a run, and the experiment if there is none."""
        experiment = self.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "epochal"
        made = client.create_run(
            experiment_id(client, experiment, artifacts),
            start_time=int(about.started * 1000),
            run_name=self.run_name or about.name,
            tags={"epochal.host": about.host, "mlflow.source.name": about.name, **self.tags},
        )
        return str(made.info.run_id)


def may_pass(error: Exception) -> bool:
    """Say whether an error is one of a server or of the way to it, and not of what was sent.

    >>> may_pass(ConnectionRefusedError()), may_pass(ValueError())
    (True, False)
    """
    code = getattr(error, "error_code", None)
    return code in PASSING if code is not None else isinstance(error, OSError)


def taken_up(client: Any, run_id: str) -> bool:
    """Let a resumed training's run go on; False, said as a warning, where the store has no such run any more."""
    try:
        is_there = client.get_run(run_id).info.lifecycle_stage != "deleted"
        if is_there:
            client.update_run(run_id, status="RUNNING")
    except Exception as error:
        if getattr(error, "error_code", None) != "RESOURCE_DOES_NOT_EXIST":
            raise
        is_there = False
    if not is_there:
        logger.warning("MLflow has no run %s, in which this training should go on; a new run begins.", run_id)
    return is_there


def experiment_id(client: Any, name: str, artifacts: str | None) -> str:
    """Return the id of the experiment with this name, made if there is none."""
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except Exception:
            found = client.get_experiment_by_name(name)  # another run may have made it meanwhile
            if found is None:
                raise
    return str(found.experiment_id)


class MLflowWriter:
    """One MLflow run; ``begins``: the server has nothing of it yet; ``ended``: when its training ended."""

    def __init__(
        self, client: Any, run_id: str, known: Mapping[str, str], artifacts: Artifacts, *, uri: str,
        ended: float | None = None,
    ) -> None:  # fmt: skip
        self.client, self.run_id, self.artifacts, self.uri, self.ended = client, run_id, artifacts, uri, ended
        self.known = set(known)  # MLflow refuses to change a parameter
        self.curves = Curves()
        self.names: dict[str, str] = {}  # of metrics, as MLflow has them -> as they were logged
        self.shared: set[str] = set()
        self.begins = False

    def remember(self) -> dict[str, Any]:
        """Return what another process needs to go on in the run."""
        return {
            "uri": self.uri, "run_id": self.run_id, "curves": self.curves.state_dict(),
            "where": f"{self.uri}, run {self.run_id}",
        }  # fmt: skip

    def write(self, records: Sequence[Record]) -> None:
        """Send these records in batches; what is sent twice after an error counts once."""
        params = {name: value for record in records if record.kind == "params" for name, value in record.values.items()}
        metrics = [
            Value(self.called(name), value, int(points.time * 1000), points.step)
            for points in self.curves.points(records)
            for name, value in points.values.items()
        ]
        metrics += [
            Value(self.called(name), value, int(record.time * 1000), record.at.step)
            for record in records
            if record.kind == "layers"
            for name, value in record.values.items()
        ]
        with quick_calls():
            self.params(params)
            for part in parts(metrics, METRICS_AT_ONCE):
                log_values(self.client, self.run_id, part)
            self.artifacts.send(self.client, self.run_id, records)

    def called(self, name: str) -> str:
        """Return a metric's name in MLflow; two that become one there share a curve, which is said once."""
        key = safe(name)
        first = self.names.setdefault(key, name)
        if first != name and key.removeprefix("epoch/") not in self.shared:
            self.shared.add(key.removeprefix("epoch/"))
            logger.warning("MLflow has one curve, %s, for %r and %r; give one of them another name", key, first, name)
        return key

    def params(self, given: Mapping[str, Any]) -> None:
        """Send the hyper-parameters that MLflow does not have."""
        texts = {safe(name): str(value)[:LONGEST_PARAM] for name, value in given.items()}
        new = [(name, text) for name, text in texts.items() if name not in self.known]
        for part in parts(new, PARAMS_AT_ONCE):
            self.some_params(part)

    def some_params(self, given: Sequence[tuple[str, str]]) -> None:
        """Send a few; one that the server refuses (an older one takes 500 characters) costs only itself."""
        from mlflow.entities import Param

        try:
            self.client.log_batch(self.run_id, params=[Param(*one) for one in given], synchronous=True)
        except Exception as error:
            if may_pass(error):
                raise
            if len(given) == 1:
                logger.warning("MLflow refuses the parameter %s: %s", given[0][0], first_line(error))
            for one in given if len(given) > 1 else ():
                self.some_params([one])
        self.known.update(name for name, _ in given)

    def finish(self, end_reason: str) -> None:
        """End the run truthfully."""
        with quick_calls():
            self.client.set_tag(self.run_id, "epochal.end_reason", end_reason)
            if self.artifacts.left_out:
                self.client.set_tag(self.run_id, "epochal.artifacts_left_out", str(self.artifacts.left_out))
            ended = None if self.ended is None else int(self.ended * 1000)
            self.client.set_terminated(self.run_id, status=STATUS[end_reason], end_time=ended)


def parts(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Return consecutive parts of at most ``size`` items.

    >>> list(parts([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    return (items[start : start + size] for start in range(0, len(items), size))
