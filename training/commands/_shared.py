"""training/: what several commands share: options, loading of data, progress bars, scores."""

from __future__ import annotations

import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardware.errors import UsageError
from training.config import TrainConfig, load_train_config
from training.data.dataset import Dataset, load_mixtures, load_substances
from training.data.layouts import refuse_test_part, training_part

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
    from typing import TypeVar

    T = TypeVar("T")
    K = TypeVar("K", bound=Hashable)

_OPTIONS: dict[str, dict[str, Any]] = {
    "--config": {
        "metavar": "NAME|FILE",
        "help": "a shipped configuration (substances-50, mixtures-12, fruits-5, paper-50) or a "
        "YAML file",
    },
    "--data": {
        "required": True,
        "type": Path,
        "metavar": "DIR",
        "help": "the recordings, DIR/LABEL/*.csv or DIR/LABEL/SESSION/*.csv",
    },
    "--run": {
        "dest": "run_folder",
        "type": Path,
        "metavar": "DIR",
        "help": "folder for checkpoints and reports (default: runs/NAME)",
    },
    "--device": {"default": "cpu", "help": "torch device (default: cpu)"},
    "--folds": {"metavar": "0,1", "help": "which folds (all)"},
    "--jobs": {
        "type": int,
        "default": -1,
        "metavar": "N",
        "help": "processor cores to use (all)",
    },
    "--json": {"action": "store_true", "help": "print one JSON object"},
}


def add_option(parser: argparse.ArgumentParser, name: str, **changes: Any) -> None:
    """Add an option that several commands have, with `changes` to its usual arguments."""
    parser.add_argument(name, **(_OPTIONS[name] | changes))


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add --config, --data, --run and --device."""
    add_option(parser, "--config", required=True)
    add_option(
        parser,
        "--data",
        help="substances: DIR/LABEL/*.csv or DIR/LABEL/SESSION/*.csv; mixtures: DIR/*.csv; or the "
        "root of the published data set, of which the training part is taken",
    )
    add_option(parser, "--run")
    add_option(parser, "--device", help="torch device (default: cpu; cuda trains in bfloat16)")


def config_path(name_or_path: str) -> Path:
    """Return the file of a configuration: a shipped one's name, or a path."""
    shipped = Path(str(resources.files("training.configs"))) / f"{name_or_path}.yaml"
    if shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if not path.is_file():
        files = shipped.parent.glob("*.yaml")
        names = ", ".join(sorted(file.stem for file in files if file.stem != "search-space"))
        raise UsageError(
            f"There is no configuration {name_or_path!r}: name a shipped one ({names}) or a "
            "YAML file."
        )
    return path


def load_training(args: argparse.Namespace) -> tuple[TrainConfig, Dataset, Path]:
    """Return the configuration, the data and the run folder that the options name."""
    config = load_train_config(config_path(args.config))
    refuse_test_part(args.data)
    data = load_recordings(config.task, args.data).at_rate(config.preprocessing.rate_hz)
    data.require_channels(config.required_channels)
    return config, data, args.run_folder or Path("runs") / config.name


def load_recordings(
    task: str, folder: Path, index: Path | None = None, labels: Sequence[str] | None = None
) -> Dataset:
    """Load the recordings of a task; of a whole data set load, and name, its training part."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}. Name the one that holds the recordings.")
    part = training_part(folder, task)
    if part.folder != folder:
        print(f"Taking the {part}", file=sys.stderr)
    if task == "mixture":
        return load_mixtures(part.folder, index, labels)
    data = load_substances(part.folder, labels)
    for notice in data.notices:
        print(notice, file=sys.stderr)
    return data


def progress_bar(items: Iterable[T]) -> Iterable[T]:
    """Show the progress through `items` where standard error is a terminal and tqdm is there."""
    try:
        from tqdm import tqdm  # noqa: PLC0415 - of the train extra
    except ImportError:
        return items
    bar: Iterable[T] = tqdm(items, dynamic_ncols=True, mininterval=1.0, disable=None)
    return bar


class StepBar:
    """A progress bar over training steps, with the remaining time and the smoothed loss."""

    def __init__(self, title: str, steps: int) -> None:
        from tqdm import tqdm  # noqa: PLC0415 - of the train extra

        self._bar = tqdm(total=steps, desc=title, unit="step", dynamic_ncols=True, mininterval=1.0)
        self._loss: float | None = None

    def __call__(self, step: int, loss: float) -> None:
        """Show the state after `step` steps."""
        self._loss = loss if self._loss is None else 0.98 * self._loss + 0.02 * loss
        self._bar.update(step - self._bar.n)
        if step % 20 == 0:
            self._bar.set_postfix(loss=f"{self._loss:.3f}", refresh=False)
        if step >= (self._bar.total or 0):
            self._bar.close()


def step_bars(
    title: Callable[[K], str], steps: Callable[[K], int]
) -> Callable[[K, int, float], None]:
    """Return an `on_step(training, step, loss)` that shows one bar for each training.

    `title` and `steps` return the title and the length of a training's bar.
    """
    bars: dict[K, StepBar] = {}

    def on_step(training: K, step: int, loss: float) -> None:
        if training not in bars:
            bars[training] = StepBar(title(training), steps(training))
        bars[training](step, loss)

    return on_step


def print_scores(
    scores: Mapping[str, float],
    intervals: Mapping[str, Sequence[float]] | None = None,
    *,
    indent: int = 2,
) -> None:
    """Print an aligned line per score, with its interval where there is one."""
    width = max(map(len, scores), default=0)
    for name, value in scores.items():
        number = f"{value:.4f}" if isinstance(value, float) else str(value)
        ends = (intervals or {}).get(name)
        interval = f"  [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""
        print(f"{'':{indent}}{name:<{width}}  {number}{interval}")
