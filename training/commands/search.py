"""training/: `scent-train search`: find settings on held-out recordings."""

from __future__ import annotations

import dataclasses
import json
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from hardware.command_line import EXIT_INTERRUPTED, EXIT_OK
from hardware.errors import UsageError
from training.commands._engine import add_engine_options, chosen_engine
from training.commands._folds import chosen_folds
from training.commands._shared import add_option, add_training_options, load_training, step_bars
from training.engines import open_engine
from training.sampling.measurements import total_steps

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

    from training.config import TrainConfig
    from training.experiments.search import TrialRow
    from training.experiments.study_storage import StudyPlace


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.description = (
        "Try settings of a configuration by Optuna. Each trial trains a network per "
        "fold; one that is worse than the median at the same fold and step is pruned. The study "
        "is a file in the run folder, or lies in a database (--storage), where several searchers "
        "share it: Ctrl-C keeps it, and the same command resumes it."
    )
    parser.epilog = (
        "Example: scent-train search --config substances-50 --data data/smellnet/base "
        "--trials 40 --folds 0,1 --steps 600"
    )
    add_training_options(parser)
    parser.add_argument(
        "--trials", type=int, default=30, metavar="N", help="in all, earlier calls counted (30)"
    )
    add_option(parser, "--folds", default="0,1", help="trained and scored in each trial (0,1)")
    parser.add_argument(
        "--steps", type=int, metavar="N", help="of one training (default: the configuration's)"
    )
    parser.add_argument(
        "--space",
        type=Path,
        metavar="FILE",
        help="what may be tried (default: the shipped search-space.yaml)",
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="a database for the study, such as postgresql://USER@HOST/DATABASE (extra "
        "postgresql; the password in PGPASSWORD or ~/.pgpass); the same command on several "
        "computers searches together",
    )
    parser.add_argument(
        "--study",
        metavar="NAME",
        help="with --storage: name of the study (default: the configuration's)",
    )
    add_engine_options(parser)
    add_option(parser, "--json")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Search, then print every trial and the best settings; Ctrl-C prints them too."""
    from training.experiments.search import (  # noqa: PLC0415
        open_study,
        run_trials,
        run_trials_on,
        trial_rows,
    )
    from training.experiments.search_space import load_space  # noqa: PLC0415
    from training.experiments.study_storage import StudyPlace, explained  # noqa: PLC0415

    choice = chosen_engine(args)
    if args.study is not None and args.storage is None:
        raise UsageError("--study names a study in a database; add --storage, or omit it.")
    config, data, folder = load_training(args)
    if config.in_order_only:
        data = data.drop_unordered()
    config = _shortened(config, args.steps)
    space = load_space(args.space or _shipped_space(), config)
    folds = chosen_folds(args.folds, data)
    if args.run_folder is None:
        folder = Path("runs") / f"{config.name}-search"
    bars: Callable[[tuple[int, int], int, float], None] = step_bars(
        lambda training: "trial {} fold {}".format(*training), lambda _: total_steps(config, data)
    )
    code = EXIT_OK
    place = StudyPlace(folder)
    if args.storage is not None:
        place = StudyPlace(folder, args.storage, args.study or config.name)
    common = {
        "folds": folds,
        "trials": args.trials,
        "device": args.device,
        "on_trial": lambda row: print(_line(row), file=sys.stderr),
    }
    with explained(place.url):
        study = open_study(place, config, data, space, folds)
        try:
            with open_engine(choice) as engine:
                if engine.here:
                    run_trials(
                        study,
                        config,
                        data,
                        space,
                        shared=place.shared,
                        on_step=lambda trial, fold, step, loss: bars((trial, fold), step, loss),
                        **common,
                    )
                else:
                    run_trials_on(engine, place, config, data, space, **common)
        except KeyboardInterrupt:
            print("\nStopped. The same command resumes this study.", file=sys.stderr)
            code = EXIT_INTERRUPTED
        _print(trial_rows(study), place, as_json=args.json)
    return code


def _shortened(config: TrainConfig, steps: int | None) -> TrainConfig:
    if steps is None:
        return config
    if config.optimiser.epochs:
        raise UsageError(
            f"{config.name} is trained by epochs (optimiser.epochs: {config.optimiser.epochs}), so "
            "--steps has no effect. Omit it, or set optimiser.epochs in your own configuration."
        )
    if steps < 1:
        raise UsageError(f"--steps must be at least 1, got {steps}.")
    optimiser = dataclasses.replace(
        config.optimiser, steps=steps, warmup=min(config.optimiser.warmup, steps // 10)
    )
    return dataclasses.replace(config, optimiser=optimiser)


def _shipped_space() -> Path:
    return Path(str(resources.files("training.configs"))) / "search-space.yaml"


def _print(rows: Sequence[TrialRow], place: StudyPlace, *, as_json: bool) -> None:
    from training.experiments.search import SearchError, best_trial  # noqa: PLC0415
    from training.experiments.search_space import settings_yaml  # noqa: PLC0415

    best = problem = None
    try:
        best = best_trial(rows)
    except SearchError as error:
        problem = error
    if as_json:
        found = best and {
            "number": best.number, "score": best.score, "settings": dict(best.settings)
        }  # fmt: skip
        trials = [dataclasses.asdict(row) for row in rows]
        print(json.dumps({"trials": trials, "best": found}))
        return
    print("\n".join(_lines(rows)))
    if best is None:
        print(problem, file=sys.stderr)
        return
    print(f"\n# trial {best.number}, score {best.score:.4f}: paste over a configuration's own")
    print(settings_yaml(best.settings), end="")
    print(f"Study: {place}", file=sys.stderr)


def _lines(rows: Sequence[TrialRow]) -> Iterator[str]:
    yield f"{'trial':>5}  {'state':<9} {'score':>7}  {'folds':>6}  settings"
    for row in rows:
        yield _line(row)


def _line(row: TrialRow) -> str:
    score = "" if row.score is None else f"{row.score:.4f}"
    settings = ", ".join(
        f"{name.rpartition('.')[2]} " + (f"{value:.3g}" if isinstance(value, float) else str(value))
        for name, value in row.settings.items()
    )
    return f"{row.number:>5}  {row.state:<9} {score:>7}  {row.folds + row.share:>6.2f}  {settings}"
