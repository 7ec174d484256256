"""training/: cross-validation that holds out whole sessions, the figure that counts.

A network is trained without the recordings of some sessions, quantised and scored on them: whole
recordings by mean log-probability, and what the nose announced when it was played them. Imports
torch only while it trains.
"""

from __future__ import annotations

import dataclasses
import time
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from hardware.errors import UsageError
from models.bundle import load_bundle
from models.softmax import log_softmax
from training.data.clean_air import begin_in_clean_air
from training.data.sessions import session_folds
from training.engines import SERIAL
from training.evaluation.decision_source import (
    ALSO_HELD_OUT,
    SESSIONS_HELD_OUT,
    also_decision,
    fold_decisions,
)
from training.evaluation.held_out import HELD_OUT, HeldOut, concatenate_held_out, read_held_out
from training.evaluation.intervals import pool_tallies, scores_with_intervals
from training.evaluation.network_outputs import measure_space, run_network
from training.evaluation.replayed import announcement_tally, replay_recordings
from training.evaluation.scoring import (
    Ratio,
    Tally,
    mean_per_recording,
    recording_rank_tally,
    substance_tally,
    total_scores,
)
from training.evaluation.storage import SESSIONS_REPORT, write_json
from training.evaluation.streaming import stream_recordings
from training.experiments.runner import report_head, train_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from models.bundle import Bundle
    from models.embedding_space import EmbeddingSpace
    from training.config import TrainConfig
    from training.data.dataset import Dataset
    from training.data.sessions import SessionFold
    from training.engines import Engine
    from training.evaluation.decision_source import DecisionSource

PROTOCOL = (
    "whole sessions held out; recordings of labels without another session are neither trained "
    "on nor judged then"
)
LISTED = 3
"""Labels of the short list in the table of recordings."""


class _Scored(NamedTuple):
    """Some recordings judged by one network: their tally, groups and rows of the report."""

    tally: Tally
    groups: list[str]
    rows: list[dict[str, Any]]


class _Trained(NamedTuple):
    """The network of a fold and its outputs for the held-out recordings.

    `place`: the folder of its bundle. `from_onset`: all recordings begin in clean air, so that
    evidence begins with the onset.
    """

    place: Path
    space: EmbeddingSpace
    test: Dataset
    held_out: HeldOut
    seconds: float
    from_onset: bool

    def load(self) -> Bundle:
        """Return the network, which another process may have trained."""
        return load_bundle(self.place, precision="int8")


def cross_validate_sessions(
    config: TrainConfig,
    data: Dataset,
    folder: Path,
    *,
    also: Dataset | None = None,
    device: str = "cpu",
    on_step: Callable[[int, int, float], None] = lambda _fold, _step, _loss: None,
    engine: Engine = SERIAL,
) -> dict[str, Any]:
    """Hold out whole sessions, write the report and the held-out outputs, return the report.

    Parameters
    ----------
    config, data: a substance model and its recordings, at the model's rate.
    folder: of the run; finished folds in it are used again.
    also: recordings of further sessions, which never train. Constants that are fitted on them
        judge only other recordings. Every fold's network is asked; in the pooled scores each
        recording counts once.
    device: torch device.
    on_step: called with fold, step and loss.
    engine: on which the folds are trained.

    Raises
    ------
    SessionError: no label has two sessions.
    UsageError: a mixture model, or `also` holds a recording of `data`.
    """
    _check(config, data, also)
    folds = session_folds(data)
    follow = engine.follow(on_step)
    calls = [
        partial(_train_fold, config, data, number, fold, folder, device, partial(follow, number))
        for number, fold in enumerate(folds)
    ]
    trained = list(engine.in_order(calls))
    held_out = concatenate_held_out([one.held_out for one in trained])
    held_out.save(folder / SESSIONS_HELD_OUT)
    further = None
    if also is not None:
        further = _also_outputs(trained, also)
        further.save(folder / ALSO_HELD_OUT)
    same_sessions = _recordings_held_out(folder, data)
    decisions = fold_decisions(held_out, same_sessions, further)
    also_decided = also_decision(held_out, same_sessions, decisions[0])
    parts: list[_Scored] = []
    rows = []
    for number, (fold, one) in enumerate(zip(folds, trained, strict=True)):
        bundle = one.load()
        scored = _score(bundle, one.test, decisions[number], from_onset=one.from_onset)
        rows.append(_fold_row(number, fold, scored, decisions[number], one.seconds))
        parts.append(scored)
        if also is not None:
            from_onset = begin_in_clean_air(also.samples)
            other = _score(bundle, also, also_decided, from_onset=from_onset)
            rows[-1]["also"] = _rounded(other.tally)
            parts.append(
                _Scored(
                    _share(other.tally, len(folds)),
                    [f"also/{group}" for group in other.groups],
                    other.rows,
                )
            )
    report = {
        **report_head(config, data, PROTOCOL),
        "sessions": len({session for fold in folds for session in fold.sessions}),
        "also": 0 if also is None else len(also.samples),
        "always_trained": sum(not sample.session for sample in data.samples),
        "folds": rows,
        **_pool(parts),
        "recordings": [row for part in parts for row in part.rows],
        "constants": {
            str(number): dataclasses.asdict(one.spec) for number, one in decisions.items()
        },
    }
    write_json(folder / SESSIONS_REPORT, report)
    return report


def _check(config: TrainConfig, data: Dataset, also: Dataset | None) -> None:
    if config.task != "substance":
        raise UsageError(
            f"Expected a model of single substances, and {config.name} is one of mixtures, whose "
            "days are held out by `cross_validate_days`."
        )
    if also is None:
        return
    known = {sample.sha256 for sample in data.samples}
    seen = [sample.name for sample in also.samples if sample.sha256 in known]
    if seen:
        raise UsageError(
            f"Expected recordings in --also that are not in --data; {seen[0]} is in both. What "
            "trains cannot judge: name other recordings."
        )


def _train_fold(
    config: TrainConfig,
    data: Dataset,
    number: int,
    fold: SessionFold,
    folder: Path,
    device: str,
    on_step: Callable[[int, float], None],
) -> _Trained:
    started_s = time.monotonic()
    train, test = data.subset(fold.train), data.subset(fold.test).drop_unordered()
    if config.in_order_only:
        train = train.drop_unordered()
    bundle = train_bundle(
        config, train, folder / f"sessions-{number}", f"scent-train crossval (sessions {number})",
        device=device, on_step=on_step,
    )  # fmt: skip
    seconds = time.monotonic() - started_s
    space = measure_space(bundle, train)
    from_onset = begin_in_clean_air(data.samples)
    outputs = _outputs(bundle, test, number, space, from_onset=from_onset)
    return _Trained(bundle.folder, space, test, outputs, seconds, from_onset)


def _outputs(
    bundle: Bundle, test: Dataset, number: int, space: EmbeddingSpace, *, from_onset: bool
) -> HeldOut:
    """Return the outputs of a fold's network for some recordings, with novelty in a space."""
    names = tuple(sample.name for sample in test.samples)
    streams = stream_recordings(bundle, test.samples, from_onset=from_onset).with_novelty(space)
    # Only the novelty is needed further on; the embeddings would be ten megabytes.
    streams = dataclasses.replace(streams, embedding=None)
    return HeldOut(
        names,
        tuple(sample.group for sample in test.samples),
        np.full(len(names), number),
        test.targets,
        run_network(bundle, test),
        streams,
    )


def _also_outputs(trained: Sequence[_Trained], also: Dataset) -> HeldOut:
    """Return the outputs for further recordings, each of one network in turn."""
    network = np.arange(len(also.samples)) % len(trained)
    from_onset = begin_in_clean_air(also.samples)
    parts = [
        _outputs(
            one.load(), also.subset(network == number), number, one.space, from_onset=from_onset
        )
        for number, one in enumerate(trained)
        if (network == number).any()
    ]
    return concatenate_held_out(parts)


def _recordings_held_out(folder: Path, data: Dataset) -> HeldOut | None:
    """Return the held-out outputs of `crossval` on the same recordings, if it was run."""
    if not (folder / HELD_OUT).is_file():
        return None
    held_out = read_held_out(folder / HELD_OUT)
    known = {sample.name for sample in data.samples}
    return held_out if known.issuperset(held_out.names) else None


def _score(bundle: Bundle, test: Dataset, decision: DecisionSource, *, from_onset: bool) -> _Scored:
    """Judge a fold's network, with the fold's decision constants, on recordings."""
    outputs = run_network(bundle, test)
    columns = [bundle.manifest.labels.index(label) for label in test.labels]
    truth = np.array(columns)[test.targets.argmax(axis=1)]
    log_p = log_softmax(outputs.require("logits"), decision.spec.temperature)
    names = [bundle.manifest.labels[k] for k in truth]
    decided = bundle.with_decision(decision.spec)
    replayed = replay_recordings(decided, test.samples, from_onset=from_onset)
    windows = substance_tally(log_p, outputs.owner, truth)
    tally = {
        **recording_rank_tally(log_p, outputs.owner, truth),
        **announcement_tally(replayed, names),
        "top1": windows["top1"],
        "top5": windows["top5"],
    }
    order = np.argsort(-mean_per_recording(log_p, outputs.owner, len(names)), axis=1)
    rows = [
        {
            "recording": sample.name,
            "session": sample.session,
            "truth": name,
            "list": [bundle.manifest.labels[k] for k in order[row, :LISTED]],
            "announced": [
                [label, round(at_s, 1)]
                for label, at_s in zip(said.names, said.seconds, strict=True)
            ],
        }
        for row, (sample, name, said) in enumerate(zip(test.samples, names, replayed, strict=True))
    ]
    return _Scored(tally, [sample.group for sample in test.samples], rows)


def _fold_row(
    number: int, fold: SessionFold, scored: _Scored, decision: DecisionSource, seconds: float
) -> dict[str, Any]:
    return {
        "fold": number,
        "sessions": fold.name,
        "recordings": len(scored.groups),
        "not_judged": list(fold.not_judged),
        "constants_from": decision.source,
        **_rounded(scored.tally),
        "seconds": round(seconds, 1),
    }


def _rounded(tally: Tally) -> dict[str, float]:
    return {name: round(value, 4) for name, value in total_scores(tally).items()}


def _share(tally: Tally, folds: int) -> Tally:
    """Return the tally of one of several networks asked about the same recordings."""
    return {
        name: Ratio(ratio.gained / folds, ratio.possible / folds) for name, ratio in tally.items()
    }


def _pool(parts: Sequence[_Scored]) -> dict[str, Any]:
    """Return the scores over all recordings and their 95 % intervals over recordings."""
    groups = [group for part in parts for group in part.groups]
    pooled = scores_with_intervals(pool_tallies([part.tally for part in parts]), groups)
    return {"pooled": pooled["scores"], "intervals": pooled["intervals"]}
