"""training/: where independent tasks run: here, in processes of this machine, or on Dask.

An engine only runs tasks; what was done before, and what a result is worth, their callers know. The
workers use one thread each, so that two of them do not compete for a core. Must stay light: every
worker imports it.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, cast

from hardware.errors import ScentdError, UsageError
from hardware.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

LOCAL, DASK = "local", "dask"
ENGINES = (LOCAL, DASK)

_AHEAD = 4
"""Tasks of a worker that are handed out before it asks: enough that none waits for the next."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Task = TypeVar("Task")
Result = TypeVar("Result")
Callback = TypeVar("Callback", bound="Callable[..., None]")


class EngineError(ScentdError):
    """An engine cannot start, or lost a worker."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which engine, and how large.

    Attributes
    ----------
    name: one of `ENGINES`.
    workers: processes on this machine.
    scheduler: address of a running Dask scheduler, whose workers are used instead; None without.
    """

    name: str = LOCAL
    workers: int = 1
    scheduler: str | None = None

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise UsageError(f"Expected at least one worker, got {self.workers}.")
        if self.scheduler is not None and self.name != DASK:
            raise UsageError("--scheduler is for --engine dask; add that, or omit it.")


class Engine:
    """Runs tasks; make one with `open_engine`.

    Attributes
    ----------
    workers: how many tasks run at once.
    """

    def __init__(
        self, executor: Executor | None, workers: int, lost: tuple[type[Exception], ...] = ()
    ) -> None:
        self._executor = executor
        self.workers = workers
        self._lost = lost

    @property
    def here(self) -> bool:
        """Whether the tasks run in this process, so that it can follow them."""
        return self._executor is None

    def follow(self, callback: Callback, /) -> Callback:
        """Return a callback that follows a task where tasks run here, else one that does nothing.

        A callback cannot be called from another process.
        """
        return callback if self.here else cast("Callback", _ignore)

    def in_order(self, calls: Sequence[Callable[[], Result]]) -> Iterator[Result]:
        """Yield the results of calls in their order, each as soon as those before it are done.

        Parameters
        ----------
        calls: without arguments, which can be pickled: partials of functions of a module.
        """
        early: dict[int, Result] = {}
        wanted = 0
        for (number, _), result in self.run(_call, enumerate(calls)):
            early[number] = result
            while wanted in early:
                yield early.pop(wanted)
                wanted += 1

    def run(
        self, function: Callable[[Task], Result], tasks: Iterable[Task]
    ) -> Iterator[tuple[Task, Result]]:
        """Yield every task with what `function` returned for it, as each is done.

        Parameters
        ----------
        function: of a module, not of another function: workers import it.
        tasks: which can be pickled.

        Raises
        ------
        EngineError: a worker process was killed.
        """
        if self._executor is None:
            for task in tasks:
                yield task, function(task)
            return
        remaining = iter(tasks)
        running: dict[Future[Result], Task] = {}
        try:
            while True:
                for task in islice(remaining, _AHEAD * self.workers - len(running)):
                    running[self._executor.submit(function, task)] = task
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    task = running.pop(future)
                    yield task, future.result()
        except self._lost as error:
            raise EngineError(
                "A worker process ended before its work was done; the system may have run out of "
                "memory. What was finished is kept: run the same command again, with fewer "
                "--workers if need be."
            ) from error
        finally:
            for future in running:
                future.cancel()


SERIAL = Engine(None, 1)
"""Runs one task after the other, in this process."""


def _call(numbered: tuple[int, Callable[[], Result]]) -> Result:
    return numbered[1]()


def _ignore(*_: object) -> None:
    """Take any report, and do nothing."""


@contextmanager
def open_engine(choice: EngineChoice) -> Iterator[Engine]:
    """Start an engine, and stop its workers at the end of the block.

    Raises
    ------
    ExtraNotInstalledError: its package is not installed.
    EngineError: its scheduler cannot be reached.
    """
    if choice.name == DASK:
        with _dask(choice) as engine:
            yield engine
    elif choice.workers == 1:
        yield SERIAL
    else:
        with _processes(choice.workers) as engine:
            yield engine


@contextmanager
def _processes(workers: int) -> Iterator[Engine]:
    before = {name: os.environ.get(name) for name in _THREADS}
    # Read by the libraries when a worker loads them.
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    executor = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), initializer=_prepare_worker
    )
    try:
        yield Engine(executor, workers, (BrokenProcessPool,))
    except BaseException:
        # A training would go on for minutes.
        for child in multiprocessing.active_children():
            child.terminate()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _prepare_worker() -> None:
    """Let the parent alone handle Ctrl-C, and end with it however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def _dask(choice: EngineChoice) -> Iterator[Engine]:
    require_extra("The engine dask", "dask", ("distributed",))
    from distributed import Client, KilledWorker, LocalCluster  # noqa: PLC0415 - the extra dask

    from scentd.__main__ import find_folders  # noqa: PLC0415 - the same in every process

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if choice.scheduler is not None:
        try:
            client = Client(choice.scheduler, timeout="10s")
        except (OSError, ValueError) as error:
            raise EngineError(
                f"No scheduler of Dask answers at {choice.scheduler} ({error}). Start one (dask "
                "scheduler), or leave --scheduler out."
            ) from error
        with client:
            # Its workers know the installed package, and not yet the folders below it.
            client.run(find_folders)
            workers = sum(client.nthreads().values())
            if not workers:
                raise EngineError(
                    f"The scheduler at {choice.scheduler} has no workers. Start some (dask worker "
                    f"{choice.scheduler} --nthreads 1)."
                )
            yield Engine(client.get_executor(pure=False), workers, (KilledWorker,))
        return
    with (
        LocalCluster(
            n_workers=choice.workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,
            dashboard_address=None,
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield Engine(client.get_executor(pure=False), choice.workers, (KilledWorker,))
