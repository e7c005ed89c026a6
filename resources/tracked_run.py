"""A run of MLflow that is kept in memory and sent by a thread of its own, so that no work waits for MLflow or fails."""

import json
import os
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from resources.machine_load import MachineLoad

Report = Callable[[str], None]
# MLflow's own limits.
NUMBERS_A_REQUEST, PARAMETERS_A_REQUEST = 1000, 100
LONGEST_NAME, LONGEST_PARAMETER, LONGEST_DIGEST = 250, 6000, 36
# What a slow server takes in a second; the end of a run waits as long as its artifacts and numbers may need.
BYTES_A_SECOND, NUMBERS_A_SECOND = 5_000_000, 1000
# Pauses before each try at the end of a run, in seconds.
LAST_TRIES = (0, 1, 2)


class RunMissingError(LookupError):
    """MLflow has no such run, and trying again will not bring it."""


@dataclass(frozen=True)
class OpenRun:
    """A run as MLflow has it.

    Attributes:
        client: MLflow's client.
        run_id: Its id in MLflow.
        address: Its page.
        artifacts: Directory of its artifacts where this machine writes it directly, None behind a server.
        last_steps: Name of each metric -> largest step that was recorded before.
    """

    client: Any
    run_id: str
    address: str
    artifacts: Path | None
    last_steps: Mapping[str, int]


@dataclass(frozen=True)
class _Record:
    """Something to send.

    Attributes:
        what: How it is called when it is lost.
        send: Sends it; sending twice is the same as once.
        size: Bytes, where they matter.
    """

    what: str
    send: Callable[[OpenRun], object]
    size: int = 0


@dataclass(frozen=True)
class _Number:
    key: str
    value: float
    milliseconds: int
    step: int
    of_curve: bool


class TrackedRun:
    """What is recorded of a run. Nothing here raises because of MLflow, nor waits for it.

    Everything is kept in memory until MLflow has taken it, so a server may go away and come back in between. What it
    has not taken at the end is reported once and listed in `lost`.

    Attributes:
        lost: What could not be recorded; known when the run has ended.
    """

    def __init__(
        self,
        name: str,
        open_run: Callable[[], OpenRun],
        *,
        check: Callable[[], None],
        report: Report,
        every_seconds: float,
        patience_seconds: float,
        with_load: bool,
        run_id: str | None,
    ) -> None:
        """Prepare a run.

        Args:
            name: For messages.
            open_run: Opens the run in MLflow; called until it does not raise.
            check: Raises where MLflow is away; called before anything is sent.
            report: Told once when MLflow is away at the start, and once about what is lost at the end.
            every_seconds: Between two sendings, and two samples of the machine's load.
            patience_seconds: Longest wait for MLflow, at the start and at the end.
            with_load: Whether the load of the machine is recorded too.
            run_id: Where it is known before MLflow is reached.
        """
        self.lost: tuple[str, ...] = ()
        self._name, self._open_run, self._check, self._report = name, open_run, check, report
        self._every, self._patience, self._with_load = every_seconds, patience_seconds, with_load
        self._run_id = run_id
        self._open: OpenRun | None = None
        self._numbers: deque[_Number] = deque()
        self._records: deque[_Record] = deque()
        self._artifacts: deque[_Record] = deque()
        self._end: deque[_Record] = deque()
        self._refused: list[str] = []
        self._trouble, self._missing = "", False
        self._samples_seen = 0
        self._load: MachineLoad | None = None
        self._tried, self._ending, self._given_up = threading.Event(), threading.Event(), False
        self._worker = threading.Thread(target=self._work, name=f"mlflow {name}", daemon=True)

    @property
    def run_id(self) -> str | None:
        """Its id in MLflow; None until MLflow has opened it."""
        return self._open.run_id if self._open else self._run_id

    @property
    def address(self) -> str | None:
        """Its page in MLflow; None until MLflow has opened it."""
        return self._open.address if self._open else None

    def log_parameters(self, parameters: Mapping[str, object]) -> None:
        """Record what the run was started with; a later value of the same name is refused by MLflow."""
        values = [(_name(key), _shortened(str(value))) for key, value in parameters.items()]
        for start in range(0, len(values), PARAMETERS_A_REQUEST):
            some = values[start : start + PARAMETERS_A_REQUEST]
            self._records.append(_Record(f"parameters ({len(some)})", partial(_send_parameters, values=some)))

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Record numbers at a step."""
        self._keep(metrics, step, of_curve=False)

    def log_curve(self, points: Iterable[tuple[int, Mapping[str, float]]]) -> None:
        """Record points of curves over samples seen.

        A run that goes on leaves out the points up to the last one that MLflow has. So whoever goes on hands over the
        whole curve so far, and none is missing or double.

        Args:
            points: Samples seen, and name -> value there.
        """
        for samples_seen, metrics in points:
            self._samples_seen = max(self._samples_seen, samples_seen)
            self._keep(metrics, samples_seen, of_curve=True)

    def log_dataset(self, name: str, digest: str, source: str) -> None:
        """Record which data was used.

        Args:
            name: Such as `clipcov_subset/crawl-2/f20`.
            digest: Version of its content; MLflow keeps 36 characters.
            source: Where it is kept.
        """
        self._records.append(_Record(f"dataset {name}", lambda run: _send_dataset(run, name, digest, source)))

    def log_artifact(self, path: str | Path, folder: str = "") -> None:
        """Record a file, which must stay until the run has ended.

        A directory of this machine gets a hard link instead of a copy where it can, so a file is replaced, not
        changed, after it was recorded.

        Args:
            path: The file.
            folder: Where it is shown in MLflow.
        """
        file = Path(path).resolve()
        size = file.stat().st_size if file.exists() else 0
        self._artifacts.append(_Record(f"file {file.name}", lambda run: _send_file(run, file, folder), size))

    def log_text(self, text: str, name: str) -> None:
        """Record a text as a file; its name may hold folders and says the kind: `.md`, `.html`, `.json`, `.csv`."""
        self._keep_content(text.encode(), name)

    def log_picture(self, png: bytes, name: str) -> None:
        """Record a picture as a file; its name may hold folders and ends in `.png`."""
        self._keep_content(png, name)

    def begin(self) -> None:
        """Start sending; return when MLflow has answered, or after the patience."""
        self._worker.start()
        answered = self._tried.wait(self._patience)
        if self._open is None and not self._missing:
            trouble = self._trouble if answered else f"no answer within {self._patience:g} seconds"
            self._report(f"{self._name} is not in MLflow so far, it is tried again until the end: {trouble}")

    def end(self, status: str | None) -> None:
        """Send what is left, and report what MLflow did not take.

        Args:
            status: What the run becomes in MLflow, None to leave it as it is.
        """
        if status is not None:
            closing = _Record(f"its end as {status}", lambda run: run.client.set_terminated(run.run_id, status=status))
            self._end.append(closing)
        self._ending.set()
        self._worker.join(self._patience + self._seconds_to_send())
        self._given_up = True
        if self._worker.is_alive():
            self._trouble = self._trouble or f"no answer within {self._patience:g} seconds"
        self.lost = (*self._refused, *self._waiting())
        if self.lost:
            reason = f": {self._trouble}" if self._trouble else ""
            self._report(f"not recorded in MLflow of {self._name}: {', '.join(self.lost)}{reason}")

    def _keep(self, metrics: Mapping[str, float], step: int, *, of_curve: bool) -> None:
        now = int(time.time() * 1000)
        self._numbers.extend(_Number(_name(key), float(value), now, step, of_curve) for key, value in metrics.items())

    def _keep_content(self, content: bytes, name: str) -> None:
        self._artifacts.append(_Record(f"file {name}", lambda run: _send_content(run, content, name), len(content)))

    def _waiting(self) -> list[str]:
        # Copies, since the thread may take from them meanwhile.
        records = [one for lane in (self._records, self._artifacts, self._end) for one in tuple(lane)]
        return [one.what for one in records] + ([f"numbers ({len(self._numbers)})"] if self._numbers else [])

    def _seconds_to_send(self) -> float:
        return sum(one.size for one in tuple(self._artifacts)) / BYTES_A_SECOND + len(self._numbers) / NUMBERS_A_SECOND

    def _work(self) -> None:
        self._send()
        self._tried.set()
        self._sample()
        while not self._ending.wait(self._every):
            self._sample()
            self._send()
        self._sample()
        for pause in LAST_TRIES:
            time.sleep(pause)
            if self._send():
                return

    def _sample(self) -> None:
        """Keep the load of the machine since the last call; a machine that does not tell is not asked again."""
        if self._with_load:
            try:
                if self._load is None:
                    self._load = MachineLoad()
                else:
                    self._keep(self._load.sample(), self._samples_seen, of_curve=False)
            except Exception as error:  # monitors raise all kinds
                self._with_load = False
                self._refused.append(f"system metrics ({_first_line(error)})")

    def _send(self) -> bool:
        """Send what waits; return whether there is nothing left to try."""
        self._trouble = ""
        try:
            self._check()
            self._open = run = self._open or self._open_run()
        except RunMissingError as error:
            self._trouble, self._missing = str(error), True
            return True
        except Exception as error:  # MLflow, SQLAlchemy and requests raise all kinds
            self._trouble = _first_line(error)
            return False
        # A store of artifacts that is away holds back no numbers, and the run is closed all the same.
        for lane in (self._records, self._artifacts, self._end):
            try:
                self._empty(lane, run)
            except Exception as error:
                self._trouble = self._trouble or _first_line(error)
        return not self._waiting()

    def _empty(self, lane: deque[_Record], run: OpenRun) -> None:
        while not self._given_up:
            if lane is self._records:
                self._pack()
            if not lane:
                return
            try:
                lane[0].send(run)
            except Exception as error:
                if not _is_refusal(error):
                    raise
                self._refused.append(f"{lane[0].what} ({_first_line(error)})")
            lane.popleft()

    def _pack(self) -> None:
        """Make a record of the oldest numbers where no record waits, so that a long absence ends in few requests."""
        if self._numbers and not self._records:
            some = [self._numbers.popleft() for _ in range(min(NUMBERS_A_REQUEST, len(self._numbers)))]
            self._records.append(_Record(f"numbers ({len(some)})", lambda run: _send_numbers(run, some)))


def _send_parameters(run: OpenRun, values: list[tuple[str, str]]) -> None:
    from mlflow.entities import Param

    run.client.log_batch(run.run_id, params=[Param(key, value) for key, value in values])


def _send_numbers(run: OpenRun, numbers: list[_Number]) -> None:
    from mlflow.entities import Metric

    # MLflow ignores a number that it has with the same time, step and value.
    metrics = [
        Metric(one.key, one.value, one.milliseconds, one.step)
        for one in numbers
        if not (one.of_curve and one.step <= run.last_steps.get(one.key, -1))
    ]
    if metrics:
        run.client.log_batch(run.run_id, metrics=metrics)


def _send_dataset(run: OpenRun, name: str, digest: str, source: str) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(name, digest[:LONGEST_DIGEST], "local", json.dumps({"uri": source}))
    run.client.log_inputs(run.run_id, datasets=[DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


def _send_file(run: OpenRun, file: Path, folder: str) -> None:
    if run.artifacts is None:
        run.client.log_artifact(run.run_id, str(file), folder or None)
        return
    target = run.artifacts / folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(file, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(file, target)


def _send_content(run: OpenRun, content: bytes, name: str) -> None:
    path = PurePosixPath(name)
    with TemporaryDirectory() as directory:
        file = Path(directory) / path.name
        file.write_bytes(content)
        run.client.log_artifact(run.run_id, str(file), str(path.parent) if path.parent.name else None)


def _is_refusal(error: Exception) -> bool:
    """Whether sending the same once more has no use."""
    from mlflow.exceptions import MlflowException

    return isinstance(error, FileNotFoundError) or (
        isinstance(error, MlflowException) and error.get_http_status_code() == 400
    )


def _name(text: str) -> str:
    """A name that MLflow accepts: it allows few signs, and no path that means another one."""
    parts = re.sub(r"[^\w.\- :/]", "_", text).split("/")
    return "/".join(part for part in parts if part not in ("", ".", ".."))[:LONGEST_NAME].rstrip("/")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_PARAMETER else f"{text[: LONGEST_PARAMETER - 3]}..."


def _first_line(error: Exception) -> str:
    return f"{str(error).strip() or type(error).__name__}".splitlines()[0][:300]
