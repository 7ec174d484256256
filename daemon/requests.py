"""Daemon: what others ask of a running rig: judged at the door, done in the pipeline's thread.

Knows JSON, and nothing of brokers, smells or calibration. `Inbox` belongs to the broker's
thread, which only leaves requests in it; `Requests` to the pipeline's, where handlers may
touch everything that lives there without a lock. What takes long is done in steps between
two readings.
"""

from __future__ import annotations

import json
import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon.system.background import Data, Steps, Task
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Collection


Handler = Callable[[Data], "Data | Steps"]
"""Takes the request as parsed, without its transaction; raises `ScentdError` to refuse it."""

Transaction = str | int | None

OK = "ok"
ERROR = "error"
WORKING = "working"

PAYLOAD_LIMIT = 8192
"""Bytes of a request: the longest sensible one is a page of settings."""

QUEUE_LIMIT = 16
"""Requests that wait for the pipeline; more are dropped and counted."""

BURST = 20
PER_SECOND = 5.0
"""At most BURST requests at once and PER_SECOND in the long run. People and automations stay
far below; a loop that answers its own answer must not starve the recognition."""

TRANSACTION_LIMIT = 128
JOBS_LIMIT = 4
"""Long works at a time."""

PROGRESS_EVERY_S = 1.0


class RequestError(ScentdError):
    """A request cannot be understood, or not be done as it is asked."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request, or what was wrong with it.

    Attributes
    ----------
    command: what is asked, the last level of its topic.
    payload: the parsed object without `transaction` and `progress`.
    transaction: given back in the answer, None where none came.
    progress: whether the asker wants to hear of the work's progress.
    fault: why it cannot be done, None where it may be tried.
    """

    command: str
    payload: Data
    transaction: Transaction = None
    progress: bool = False
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class RequestCounts:
    """What came in since the start.

    Attributes
    ----------
    taken: requests that the pipeline was given, faulty ones included.
    retained: ignored because the broker had kept them: an old order is not repeated at every
        start.
    dropped: too many at once, or more than the pipeline could take.
    """

    taken: int = 0
    retained: int = 0
    dropped: int = 0


def parsed(command: str, payload: bytes) -> Request:
    """Read one request; whatever is wrong with it becomes its `fault`."""
    if len(payload) > PAYLOAD_LIMIT:
        return Request(
            command,
            {},
            fault=f"A request holds at most {PAYLOAD_LIMIT} bytes, and {len(payload)} came. "
            "Send files by their path on the rig.",
        )
    try:
        data = json.loads(payload or b"{}")
    except (ValueError, RecursionError):
        data = None
    if not isinstance(data, dict):
        return Request(
            command,
            {},
            fault='A request is a JSON object, for example {"transaction": "1"}; something else '
            "came.",
        )
    transaction, progress = data.pop("transaction", None), data.pop("progress", False)
    fault = None
    if not _is_transaction(transaction):
        transaction = None
        fault = (
            f"transaction must be a whole number or text of at most {TRANSACTION_LIMIT} "
            "characters. Send another, or none."
        )
    if not isinstance(progress, bool):
        progress, fault = False, "progress must be true or false."
    return Request(command, data, transaction, progress, fault)


def _is_transaction(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= TRANSACTION_LIMIT
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


class Inbox:
    """The door: takes what the broker's thread brings, never blocks, never grows.

    Parameters
    ----------
    wake : callable
        Called after every request that was taken, to wake the pipeline's thread.
    clock : callable
        Seconds of a steady clock.
    """

    def __init__(
        self,
        wake: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wake = wake
        self._clock = clock
        self._queue: queue.Queue[Request] = queue.Queue(QUEUE_LIMIT)
        self._tokens = float(BURST)
        self._counted_s = clock()
        self._log = get_logger("requests")
        self._taken = self._retained = self._dropped = 0

    @property
    def counts(self) -> RequestCounts:
        """What came in so far."""
        return RequestCounts(self._taken, self._retained, self._dropped)

    def take_in(self, command: str, payload: bytes, retained: bool) -> None:
        """Judge one message below `request/` and keep it for the pipeline."""
        if retained:
            self._retained += 1
            self._log.warning("a retained request is ignored", command=command)
            return
        if not self._may_enter():
            self._drop(command, "too many in a short time")
            return
        try:
            self._queue.put_nowait(parsed(command, payload))
        except queue.Full:
            self._drop(command, "the pipeline is behind")
            return
        self._taken += 1
        self._wake()

    def next(self) -> Request | None:
        """Return the oldest request, None when there is none."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _may_enter(self) -> bool:
        """Count by a token bucket."""
        now_s = self._clock()
        self._tokens = min(BURST, self._tokens + PER_SECOND * (now_s - self._counted_s))
        self._counted_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _drop(self, command: str, reason: str) -> None:
        # The first says it; a flood must not fill the log.
        tell = self._log.debug if self._dropped else self._log.warning
        self._dropped += 1
        tell("a request is dropped", command=command, reason=reason)


@dataclass(slots=True)
class _Job:
    """Work under way: its request, the steps left, and when its progress was last told."""

    request: Request
    steps: Task[Data, Data]
    told_s: float


Reply = Callable[[str, Data], None]
"""Publishes an answer: the command and the payload of `response/COMMAND`."""


class Requests:
    """Does what was asked, one step at a time, and answers every request once.

    Parameters
    ----------
    inbox : Inbox
        Where requests wait.
    reply : callable
        Publishes `response/COMMAND`.
    clock : callable
        Seconds of a steady clock, for the pace of progress.
    """

    def __init__(
        self, inbox: Inbox, reply: Reply, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inbox = inbox
        self._reply = reply
        self._clock = clock
        self._handlers: dict[str, Handler] = {}
        self._jobs: list[_Job] = []
        self._log = get_logger("requests")

    @property
    def busy(self) -> bool:
        """Whether long work is under way."""
        return bool(self._jobs)

    def at_work_on(self, *commands: str) -> bool:
        """Whether long work for one of these commands is under way."""
        return any(job.request.command in commands for job in self._jobs)

    @property
    def commands(self) -> tuple[str, ...]:
        """What may be asked, sorted."""
        return tuple(sorted(self._handlers))

    def register(self, command: str, handler: Handler) -> None:
        """Let `handler` do what `request/COMMAND` asks."""
        if command in self._handlers:
            raise ValueError(f"request/{command} has a handler already")
        self._handlers[command] = handler

    def work(self) -> None:
        """Begin what is new and do one step of everything under way."""
        while (request := self._inbox.next()) is not None:
            self._begin(request)
        for job in tuple(self._jobs):
            self._step(job)

    def close(self) -> None:
        """Give up what is under way, and tell whoever asked."""
        for job in self._jobs:
            job.steps.close()
            self._fail(job.request, "The service is stopping; ask again when it is back.")
        self._jobs.clear()

    def _begin(self, request: Request) -> None:
        if request.fault is not None:
            self._fail(request, request.fault)
            return
        handler = self._handlers.get(request.command)
        if handler is None:
            self._fail(
                request,
                f"There is no request/{request.command}. This rig knows: "
                f"{', '.join(self.commands)}.",
            )
            return
        self._log.info("request", command=request.command, transaction=request.transaction)
        answer = self._guarded(request, lambda: handler(request.payload))
        if isinstance(answer, dict):
            self._answer(request, OK, data=answer)
        elif answer is not None and len(self._jobs) >= JOBS_LIMIT:
            answer.close()
            self._fail(request, f"{JOBS_LIMIT} works are under way already. Wait for one to end.")
        elif answer is not None:
            self._jobs.append(_Job(request, Task(answer), -math.inf))

    def _step(self, job: _Job) -> None:
        """Go on with a job by one step, and answer when that was the last."""

        def step() -> Data:
            progress = job.steps.step()
            return {"data": job.steps.result} if progress is None else {"progress": progress}

        outcome = self._guarded(job.request, step)
        if outcome is not None and "progress" in outcome:
            self._tell_progress(job, outcome["progress"])
            return
        self._jobs.remove(job)
        if outcome is not None:
            self._answer(job.request, OK, data=outcome["data"])

    def _tell_progress(self, job: _Job, progress: Data) -> None:
        now_s = self._clock()
        if job.request.progress and now_s - job.told_s >= PROGRESS_EVERY_S:
            job.told_s = now_s
            self._answer(job.request, WORKING, data=progress)

    def _guarded(self, request: Request, work: Callable[[], Any]) -> Any:
        """Do `work`; answer with the error if it fails, and return None then."""
        try:
            return work()
        except (ScentdError, OSError) as error:
            self._fail(request, str(error))
        except Exception:  # noqa: BLE001 - asked from outside: a bug here must not end recognition
            self._log.exception("a request failed", command=request.command)
            self._fail(request, "scentd failed at this, which is a bug; its log has the traceback.")
        return None

    def _fail(self, request: Request, reason: str) -> None:
        self._log.warning("request refused", command=request.command, reason=reason)
        self._answer(request, ERROR, error=reason)

    def _answer(
        self, request: Request, status: str, *, data: Data | None = None, error: str | None = None
    ) -> None:
        answer = {
            "status": status,
            "data": data,
            "error": error,
            "transaction": request.transaction,
        }
        self._reply(request.command, answer)


def only(payload: Data, names: Collection[str]) -> None:
    """Refuse a request with a field that nobody reads: most often a misspelt one.

    Raises
    ------
    RequestError
        Naming the fields there are.
    """
    unknown = sorted(set(payload) - set(names))
    if unknown:
        raise RequestError(
            f"{', '.join(unknown)} is nothing this request knows. Its fields are: "
            f"{', '.join(sorted(names))}."
        )


def text_of(payload: Data, name: str, default: str | None = None) -> str:
    """Return a text field.

    Raises
    ------
    RequestError
        If it is missing without a default, empty, or no text.
    """
    value = payload.get(name, default)
    if isinstance(value, str) and value.strip():
        return value.strip()
    raise RequestError(f"{name} must be text, and {json.dumps(value)} came. Add it.")


def number_of(
    payload: Data, name: str, default: float | None = None, *, low: float, high: float
) -> float:
    """Return a number field between two limits, both allowed.

    Raises
    ------
    RequestError
        If it is missing without a default, no number, or beyond a limit.
    """
    value = payload.get(name, default)
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    if usable and low <= value <= high:  # type: ignore[operator]
        return float(value)  # type: ignore[arg-type]
    raise RequestError(
        f"{name} must be a number from {low:g} to {high:g}, and {json.dumps(value)} came."
    )
