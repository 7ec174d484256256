"""Daemon: requests to a running rig: received in the MQTT thread, handled in the pipeline's.

Knows JSON, but no broker, smell or calibration. The MQTT thread only puts requests into an `Inbox`.
The pipeline's thread handles them by `Requests`: handlers may use everything of this thread without
a lock, and long work is done in steps between two readings.
"""

from __future__ import annotations

import json
import math
import queue
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from daemon.request_fields import RequestError
from daemon.system.background import HANGS, Data, Short, Steps, Task
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


Handler = Callable[[Data], "Data | Steps | Short"]
"""Handles a request, given its fields without `transaction` and `progress`; raises `ScentdError` to
refuse it. Usually an `Action` or `Actions` of `daemon.request_fields`."""

Reply = Callable[[str, Data], None]
"""Publishes a payload on `response/COMMAND`, given the command."""

Transaction = str | int | None

OK = "ok"
ERROR = "error"
WORKING = "working"

PAYLOAD_LIMIT = 8192
"""Bytes of a request; the longest useful one is a page of settings."""

QUEUE_LIMIT = 16
"""Requests that wait for the pipeline; more are dropped and counted."""

BURST = 20
PER_SECOND = 5.0
"""At most BURST requests at once and PER_SECOND in the long run. People and automations send far
fewer; a client in a loop must not slow down the recognition."""

TRANSACTION_LIMIT = 128
JOBS_LIMIT = 4
"""Requests with long work at a time."""

SHORT_LIMIT = 32
"""Requests at a time that wait for the disk alone."""

LONG_BURST = 8
LONG_PER_SECOND = 0.2
"""As BURST and PER_SECOND, of requests with long work: a reload takes a tenth of a second of a
core, the trial of a model a second."""

PROGRESS_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """One request, or its fault.

    Attributes
    ----------
    command: the last level of its topic.
    payload: the parsed object without `transaction` and `progress`.
    transaction: returned in the answer, None if there was none.
    progress: whether the sender wants to be informed of the work's progress.
    fault: why it cannot be done, None if it may be tried.
    answered: whether an answer is published; not for a request of the process itself.
    """

    command: str
    payload: Data = field(default_factory=dict)
    transaction: Transaction = None
    progress: bool = False
    fault: str | None = None
    answered: bool = True


@dataclass(slots=True)
class RequestCounts:
    """Requests received since the start.

    Attributes
    ----------
    taken: given to the pipeline, faulty ones included.
    retained: ignored because the broker had retained them: they would be repeated at every start.
    dropped: too many at once, or more than the pipeline could do.
    """

    taken: int = 0
    retained: int = 0
    dropped: int = 0


def parse(command: str, payload: bytes) -> Request:
    """Parse one request; an error in it becomes its `fault`."""
    if len(payload) > PAYLOAD_LIMIT:
        return Request(
            command,
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


class _Rate:
    """A limit of a rate: a bucket of tokens that refills with time, full in the beginning."""

    def __init__(self, burst: int, per_second: float, clock: Callable[[], float]) -> None:
        self._burst, self._per_second, self._clock = burst, per_second, clock
        self._tokens, self._refilled_s = float(burst), clock()

    def within_rate(self) -> bool:
        """Take a token; return whether there was one."""
        now_s = self._clock()
        more = self._per_second * (now_s - self._refilled_s)
        self._tokens, self._refilled_s = min(self._burst, self._tokens + more), now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _describe_refusal(error: OSError) -> str:
    """Return what the system refused, and what to do about it."""
    if error.filename is None or error.strerror is None:
        return str(error)
    return (
        f"The rig cannot use its file {error.filename}: {error.strerror}. Look at it on the rig, "
        "and at the disk; move it away or restore it, then ask again."
    )


class Inbox(_Rate):
    """A bounded queue of requests from the MQTT thread to the pipeline's; never blocks.

    `wake` is called after every queued request, to wake the pipeline's thread.
    """

    def __init__(
        self,
        wake: Callable[[], None] = lambda: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(BURST, PER_SECOND, clock)
        self._wake = wake
        self._queue: queue.Queue[Request] = queue.Queue(QUEUE_LIMIT)
        self._log = get_logger("requests")
        self.counts = RequestCounts()

    def receive(self, command: str, payload: bytes, retained: bool) -> None:
        """Queue a message below `request/` for the pipeline."""
        if retained:
            self.counts.retained += 1
            self._log.warning("a retained request is ignored", command=command)
            return
        if not self.within_rate():
            self._drop(command, "too many in a short time")
            return
        try:
            self._queue.put_nowait(parse(command, payload))
        except queue.Full:
            self._drop(command, "the pipeline is behind")
            return
        self.counts.taken += 1
        self._wake()

    def next(self) -> Request | None:
        """Return the oldest request, None when there is none."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _drop(self, command: str, reason: str) -> None:
        # Only the first is a warning: a flood of requests must not fill the log.
        log = self._log.debug if self.counts.dropped else self._log.warning
        self.counts.dropped += 1
        log("a request is dropped", command=command, reason=reason)


@dataclass(slots=True)
class _Job:
    """A request with unfinished work, and when its progress was last published."""

    request: Request
    task: Task[Data, Data]
    short: bool
    published_s: float = -math.inf


class Requests:
    """Handles the requests of an inbox, long ones step by step, and answers each once."""

    def __init__(
        self, inbox: Inbox, reply: Reply, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inbox = inbox
        self._long_work = _Rate(LONG_BURST, LONG_PER_SECOND, clock)
        self._reply = reply
        self._clock = clock
        self._handlers: dict[str, Handler] = {}
        self._jobs: list[_Job] = []
        self._log = get_logger("requests")

    @property
    def busy(self) -> bool:
        """Whether long work is unfinished."""
        return any(not job.short for job in self._jobs)

    def works_on(self, *commands: str) -> bool:
        """Whether long work of one of these commands is unfinished."""
        return any(job.request.command in commands and not job.short for job in self._jobs)

    @property
    def commands(self) -> tuple[str, ...]:
        """The registered commands, sorted."""
        return tuple(sorted(self._handlers))

    def register(self, handlers: Mapping[str, Handler]) -> None:
        """Add handlers by their commands; they replace earlier ones."""
        self._handlers |= handlers

    def work(self) -> None:
        """Begin all new requests, then do one step of each unfinished one.

        The answer to one whose disk hangs is an error; its work goes on, as the error says.
        """
        while (request := self._inbox.next()) is not None:
            self.begin(request)
        for job in tuple(self._jobs):
            self._step(job)

    def close(self) -> None:
        """End unfinished work, and answer its requests with an error."""
        for job in self._jobs:
            job.task.close()
            self._refuse(job.request, "The service is stopping; ask again when it is back.")
        self._jobs.clear()

    def begin(self, request: Request) -> None:
        """Handle a request, or begin its long work."""
        with self._errors_answered(request):
            if request.fault is not None:
                raise RequestError(request.fault)
            handler = self._handlers.get(request.command)
            if handler is None:
                raise RequestError(
                    f"There is no request/{request.command}. This rig knows: "
                    f"{', '.join(self.commands)}."
                )
            self._log.info("request", command=request.command, transaction=request.transaction)
            answer = handler(request.payload)
            if isinstance(answer, dict):
                self._answer(request, OK, data=answer)
                return
            short = isinstance(answer, Short)
            task = Task(answer.steps if isinstance(answer, Short) else answer)
            if request.answered and (why := self._too_many(short=short)) is not None:
                task.close()
                raise RequestError(why)
            self._jobs.append(_Job(request, task, short))

    def _too_many(self, *, short: bool) -> str | None:
        """Return why no more work can be begun, None if it can."""
        under_way = sum(job.short == short for job in self._jobs)
        if short:
            return None if under_way < SHORT_LIMIT else "Too many requests wait for the rig's disk."
        if under_way >= JOBS_LIMIT:
            return f"{JOBS_LIMIT} requests are under way already. Wait for one to end."
        if not self._long_work.within_rate():
            return (
                f"There were too many requests like this one. The rig takes {LONG_BURST} at "
                f"once, and one every {1 / LONG_PER_SECOND:g} s; ask again later."
            )
        return None

    def _step(self, job: _Job) -> None:
        """Do one step of a job; answer after the last one."""
        progress = None
        with self._errors_answered(job.request):
            progress = job.task.step()
            if progress is None:
                self._answer(job.request, OK, data=job.task.result)
        if progress is None:
            self._jobs.remove(job)
            return
        if HANGS in progress:
            if job.request.answered:
                self._refuse(job.request, str(progress[HANGS]))
                job.request = replace(job.request, answered=False)  # the work goes on
            return
        now_s = self._clock()
        if job.request.progress and now_s - job.published_s >= PROGRESS_EVERY_S:
            job.published_s = now_s
            self._answer(job.request, WORKING, data=progress)

    @contextmanager
    def _errors_answered(self, request: Request) -> Iterator[None]:
        """Answer with the error that the block raises."""
        try:
            yield
        except ScentdError as error:
            self._refuse(request, str(error))
        except OSError as error:
            self._refuse(request, _describe_refusal(error))
        except Exception:  # noqa: BLE001 - a bug in one request must not end the recognition
            self._log.exception("a request failed", command=request.command)
            self._refuse(
                request, "scentd failed to do this, which is a bug; its log has the traceback."
            )

    def _refuse(self, request: Request, reason: str) -> None:
        self._log.warning("request refused", command=request.command, reason=reason)
        self._answer(request, ERROR, error=reason)

    def _answer(
        self, request: Request, status: str, *, data: Data | None = None, error: str | None = None
    ) -> None:
        if request.answered:
            answer = {"status": status, "data": data, "error": error}
            self._reply(request.command, {**answer, "transaction": request.transaction})
