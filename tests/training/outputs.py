"""Outputs of imaginary networks: streams, held-out recordings and open-set folds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hardware.channels import N_CHANNELS
from models.bundle import Bundle, load_bundle
from models.decision_spec import DecisionSpec
from models.embedding_space import EmbeddingSpace
from models.manifest import write_bundle
from models.substance_decision import EvidenceShare
from tests.models.toys import LABELS, toy_files, toy_manifest
from training.data.dataset import Sample
from training.evaluation.held_out import HeldOut
from training.evaluation.network_outputs import WindowOutputs
from training.evaluation.open_set import UNKNOWN, OpenSetFold
from training.evaluation.streaming import Streams

WIDTH = 8
KNOWN = tuple("abcd")
HIDDEN = tuple("wxyz")
WINDOWS = 24


def random_streams(recordings: int = 30, windows: int = 40, seed: int = 5) -> Streams:
    """Streams of four labels whose evidence grows; one window of 100 rows every 5 s."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 4, recordings)
    lean = np.eye(4)[truth][:, None] * np.linspace(0.2, 1.5, windows)[None, :, None]
    own = rng.normal(0, 0.8, (recordings, 1, 4))
    logits = (lean + own + rng.normal(0, 1.4, (recordings, windows, 4))).astype(np.float32)
    filled = np.minimum(20 + 5 * np.arange(windows), 100) / 100
    shares = tuple(
        EvidenceShare(5.0 * (k > 0), part, 0.05 if k else part) for k, part in enumerate(filled)
    )
    return Streams(logits, shares, 45 + 5.0 * np.arange(windows), truth)


def held_out_of(streams: Streams) -> HeldOut:
    """Held-out outputs of five folds; their protocol windows are some of the streamed ones."""
    count = len(streams.truth)
    logits = streams.logits[:, ::8].reshape(-1, 4)
    windows = len(logits) // count
    answers = WindowOutputs(
        np.repeat(np.arange(count), windows), logits[:, :2].copy(), logits=logits
    )
    names = tuple(f"{row}.csv" for row in range(count))
    target = np.eye(4, dtype=np.float32)[streams.truth]
    return HeldOut(names, names, np.arange(count) % 5, target, answers, streams)


def open_set_fold(fold: int, strange: float, noise: float = 0.4) -> OpenSetFold:
    """Outputs of a network that knows four smells and was trained without four others.

    Ten recordings of each known one, five of each hidden one. A known smell lies on its own axis;
    a hidden one on an axis of its own by the share `strange`, else beside a known one.
    """
    rng = np.random.default_rng(fold)
    substance = (*np.repeat(KNOWN, 10).tolist(), *np.repeat(HIDDEN, 5).tolist())
    truth = np.array([KNOWN.index(x) if x in KNOWN else UNKNOWN for x in substance])
    axes = np.eye(WIDTH)
    centre = np.stack(
        [
            axes[KNOWN.index(x)]
            if x in KNOWN
            else strange * axes[4 + HIDDEN.index(x)] + (1 - strange) * axes[HIDDEN.index(x)]
            for x in substance
        ]
    )
    own = rng.normal(0, noise / 3, (len(substance), 1, WIDTH))
    embedding = 3 * centre[:, None] + own + rng.normal(0, noise, (len(substance), WINDOWS, WIDTH))
    logits = 2 * embedding[:, :, :4]
    space = EmbeddingSpace(KNOWN, np.zeros(WIDTH), np.eye(WIDTH), 3 * axes[:4])
    filled = np.minimum(0.2 + 0.1 * np.arange(WINDOWS), 1.0)
    shares = tuple(EvidenceShare(5.0 * (k > 0), x, 0.1 if k else x) for k, x in enumerate(filled))
    streams = Streams(
        logits.astype(np.float32),
        shares,
        45 + 12.0 * np.arange(WINDOWS),
        truth,
        embedding.astype(np.float32),
    )
    return OpenSetFold(
        fold=fold,
        labels=KNOWN,
        hidden=HIDDEN,
        space=space,
        exemplars=(3 * np.repeat(axes[:4], 5, axis=0)).astype(np.float32),
        exemplar_label=np.repeat(np.arange(4), 5),
        names=tuple(f"{x}/{fold}.{number}" for number, x in enumerate(substance)),
        substance=substance,
        outputs=WindowOutputs(
            np.repeat(np.arange(len(substance)), 4),
            embedding[:, ::6].reshape(-1, WIDTH).astype(np.float32),
            logits=logits[:, ::6].reshape(-1, 4).astype(np.float32),
        ),
        streams=streams.with_novelty(space),
    )


def calibrated_held_out(recordings: int = 200) -> HeldOut:
    """Held-out recordings whose posterior of every window is right as often as it says."""
    rng = np.random.default_rng(4)
    logits = rng.normal(0, 2.0, (recordings, 1, 5)).repeat(WINDOWS, axis=1)
    shares_ = np.exp(logits[:, 0]) / np.exp(logits[:, 0]).sum(axis=1, keepdims=True)
    truth = np.array([rng.choice(5, p=row) for row in shares_])
    shares = tuple(EvidenceShare(5.0 * (k > 0), 1.0, 0.1) for k in range(WINDOWS))
    streams = Streams(logits.astype(np.float32), shares, 45 + 12.0 * np.arange(WINDOWS), truth)
    names = tuple(map(str, range(recordings)))
    owner = np.arange(recordings)
    answers = WindowOutputs(owner, logits[:, 0].astype(np.float32), logits=logits[:, 0])
    target = np.eye(5, dtype=np.float32)[truth]
    return HeldOut(names, names, owner % 5, target, answers, streams)


def wandering(label: int, rows: int, seed: int) -> Sample:
    """A random walk of Grove counts whose trend the toy network takes for a label."""
    rng = np.random.default_rng(seed)
    readings = np.full((rows, N_CHANNELS), np.nan, dtype=np.float32)
    steps = rng.normal(0, 4, (rows, 4))
    steps[:, label] += 2.0
    readings[:, :4] = np.clip(np.rint(300 + np.cumsum(steps, axis=0)), 20, 1000)
    target = np.eye(len(LABELS), dtype=np.float32)[label]
    return Sample(f"{label}/{seed}.csv", f"{seed:064x}", readings, target, f"{seed}", 1.0)


def toy_bundle(folder: Path) -> Bundle:
    """Write and load a bundle of substances that announces at a belief of one half."""
    decision = DecisionSpec(announce=0.5, withdraw=0.3)
    write_bundle(folder, toy_manifest("substance", decision=decision), toy_files("substance"))
    return load_bundle(folder, precision="fp32")


def some_log_probabilities(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-probabilities of 60 windows of 12 recordings of 4 labels, better than chance."""
    rng = np.random.default_rng(seed)
    owner = np.sort(rng.integers(0, 12, 60))
    truth = np.arange(12) % 4
    logits = rng.normal(0, 1, (60, 4)) + 1.2 * np.eye(4)[truth[owner]]
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), owner, truth
