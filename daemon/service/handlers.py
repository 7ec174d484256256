"""Daemon: the requests of a running service: who handles them, and how they use the disk.

The handlers run in the pipeline's thread, between two readings. What they read and write is done in
one other thread, one after the other: a disk that hangs delays no reading, and such a request is
answered with an error. What takes long (a model that is installed, recordings that are searched)
has threads of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from daemon.calibrate.live import CALIBRATE
from daemon.enroll import ENROLL
from daemon.request_fields import RequestError
from daemon.requests import Inbox, Requests
from daemon.review.requests import FEEDBACK
from daemon.service.answers import describe_answer
from daemon.system.background import NOT_BEGUN, in_thread
from daemon.system.disk_thread import HANGS_AFTER_S, DiskThread

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from daemon.mqtt.messages import Messages
    from daemon.requests import Handler, Request
    from daemon.service.runtime import Runtime
    from daemon.system.background import Data, Short, Steps

Result = TypeVar("Result")

_TEACHING = (CALIBRATE, ENROLL, FEEDBACK)
"""Requests that may change what the rig knows."""


class ServiceRequests(Requests):
    """The requests of one service, with the thread in which they use the disk.

    Parameters
    ----------
    wake: wakes the pipeline's thread.
    messages: publishes the answers; returned by a function, as it is made later.
    disk_hangs: whether others know that the disk hangs.

    Attributes
    ----------
    inbox: to which the MQTT thread gives the requests.
    asked: how many requests came that may change what the rig knows.
    """

    def __init__(
        self,
        wake: Callable[[], None],
        messages: Callable[[], Messages],
        disk_hangs: Callable[[], bool],
    ) -> None:
        self.inbox = Inbox(wake)
        super().__init__(self.inbox, self._respond)
        self._disk = DiskThread("requests", wake)
        self._messages = messages
        self._disk_hangs = disk_hangs
        self.asked = 0

    def start(self) -> None:
        """Start the thread that uses the disk."""
        self._disk.start()

    def close_disk(self, timeout_s: float) -> None:
        """End the thread that uses the disk, which may write for so long."""
        self._disk.close(timeout_s)

    def on_disk(
        self, function: Callable[..., Result], *arguments: object, doing: str
    ) -> Generator[Data, None, Result]:
        """Call a function in the thread that uses the disk; an `OnDisk`."""
        return in_thread(function, *arguments, doing=doing, disk=self._disk)

    def register_on_disk(self, handlers: Mapping[str, Handler]) -> None:
        """Add handlers that use the disk: while it is known to hang, they are not begun."""
        self.register({name: self._unless_disk_hangs(one) for name, one in handlers.items()})

    def use(self, runtime: Runtime) -> None:
        """Let this runtime handle the requests that concern it."""
        self.register_on_disk(
            {CALIBRATE: runtime.calibration.handle, ENROLL: runtime.enrolment.handle}
        )

    def teaching(self) -> bool:
        """Whether the rig is being calibrated or taught."""
        return self.works_on(*_TEACHING)

    def begin(self, request: Request) -> None:
        """Handle a request, or begin its work."""
        self.asked += request.command in _TEACHING
        super().begin(request)

    def _respond(self, command: str, answer: Data) -> None:
        """Publish an answer, and what it says in words."""
        words = describe_answer(command, answer)
        self._messages().publish_response(command, {**answer, "words": words})

    def _unless_disk_hangs(self, handler: Handler) -> Handler:
        def handle(payload: Data) -> Data | Steps | Short:
            if self._disk_hangs() or self._disk.idle_s > HANGS_AFTER_S:
                raise RequestError(NOT_BEGUN)
            return handler(payload)

        return handle
