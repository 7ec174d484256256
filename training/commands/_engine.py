"""training/: the options that say where tasks run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.engines import ENGINES, LOCAL, EngineChoice

if TYPE_CHECKING:
    import argparse


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add --engine, --workers and --scheduler."""
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default=LOCAL,
        help="local: processes of this machine; dask: the same by Dask, or the workers of a "
        "running scheduler (extra dask); default: local",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes (1); several use one thread each",
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="with --engine dask: a running scheduler, such as tcp://host:8786, whose workers see "
        "the same folders",
    )


def chosen_engine(args: argparse.Namespace) -> EngineChoice:
    """Return the engine that the options name.

    Raises
    ------
    UsageError: they contradict each other.
    """
    return EngineChoice(args.engine, args.workers, args.scheduler)
