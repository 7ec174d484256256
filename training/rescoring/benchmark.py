"""training/: readings a second that `rescore` scores, with one and with two workers.

Simulated recordings in an archive of their own. The workers are started and have loaded the model
before the time is taken: an archive takes hours, a start seconds. Both numbers of workers score the
same recordings, in turns, so that a busy moment of the machine affects both.
"""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from hardware.archive import archive_recording
from hardware.recording import RecordingWriter
from hardware.recording_labels import RecordingLabels
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import MIXTURE_BOARD, SUBSTANCE_BOARD
from training.engines import EngineChoice, open_engine
from training.rescoring.run import load_models, rescore_recordings
from training.rescoring.sources import find_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from training.engines import Engine
    from training.rescoring.results import Model
    from training.rescoring.sources import Source

CASES = (
    ("substances-50", SUBSTANCE_BOARD, 10.0),
    ("mixtures-12", MIXTURE_BOARD, 10.0),
    ("substances-50", SUBSTANCE_BOARD, 1.0),
)
"""Models, boards and readings a second: a prediction is due every 5 s of the recording."""

SMELLS = "almond:120,air:60,banana:120,air:60,mango:120,air:120"
RECORDINGS = 4
MINUTES = {10.0: 15, 1.0: 60}
"""Minutes of each recording, by readings a second."""

REPEATS = 3
WORKERS = (1, 2)
ESTIMATED = (4, 8, 16)


def run_benchmark(
    engine: str, *, recordings: int = RECORDINGS, minutes: dict[float, int] | None = None
) -> dict[str, Any]:
    """Return readings a second by model, rate and workers, their ratio, and estimates beyond.

    A busy machine lowers readings a second of the clock, and less so those of the processor's time,
    of one worker in its best repeat. The estimates assume as many free cores, and Amdahl's law with
    the share that is not divided between two workers.
    """
    minutes = minutes or MINUTES
    rows = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scentd-")))
        engines = {
            workers: stack.enter_context(open_engine(EngineChoice(engine, workers)))
            for workers in WORKERS
        }
        for name, board, rate_hz in CASES:
            archive = folder / f"{name}-{rate_hz:g}"
            _write_archive(archive, board, rate_hz, recordings, minutes[rate_hz])
            sources = find_sources(archive)
            output = folder / "output" / archive.name
            paces = _measure(engines, sources, load_models([name]), output)
            one, two = (median(pace.wall for pace in paces[workers]) for workers in WORKERS)
            ratio = median(b.wall / a.wall for a, b in zip(*paces.values(), strict=True))
            rows.append(
                {
                    "model": name,
                    "rate_hz": rate_hz,
                    "readings_per_s": {"1": round(one), "2": round(two)},
                    "readings_per_processor_s": round(max(pace.processor for pace in paces[1])),
                    "ratio": round(ratio, 2),
                    "estimated": {str(n): round(one * _speedup(ratio, n)) for n in ESTIMATED},
                }
            )
    return {
        "engine": engine,
        "cores": len(os.sched_getaffinity(0)),
        "load": [round(load, 1) for load in os.getloadavg()],
        "rows": rows,
    }


def benchmark_lines(result: dict[str, Any]) -> list[str]:
    """Return the table of `run_benchmark`."""
    lines = [
        f"Simulated recordings, engine {result['engine']}, {result['cores']} cores, load of the "
        f"machine at the end {result['load'][0]} (of one minute); readings a second",
        f"{'model':<14} {'board':>6} {'1 worker':>9} {'2 workers':>10} {'ratio':>6} "
        f"{'a processor second':>19}   estimated with {', '.join(map(str, ESTIMATED))}",
    ]
    for row in result["rows"]:
        pace = row["readings_per_s"]
        estimated = ", ".join(map(str, row["estimated"].values()))
        lines.append(
            f"{row['model']:<14} {row['rate_hz']:>3g} Hz {pace['1']:>9} {pace['2']:>10} "
            f"{row['ratio']:>6.2f} {row['readings_per_processor_s']:>19}   {estimated}"
        )
    return lines


def _write_archive(root: Path, board: str, rate_hz: float, recordings: int, minutes: int) -> None:
    count = round(minutes * 60 * rate_hz)
    for number in range(recordings):
        path = root.with_name("recording.csv")
        path.unlink(missing_ok=True)
        signal = SyntheticSignal(SMELLS, rate_hz=rate_hz, loop=True, board=board, seed=number)
        with RecordingWriter(path) as writer:
            for reading, values in zip(range(count), signal, strict=False):
                writer.write(round(reading * 1000 / rate_hz), values)
        archive_recording(
            root, path, rig=f"rig{number}", session="simulated", labels=RecordingLabels()
        )


def _speedup(ratio: float, workers: int) -> float:
    """Return the speed-up by Amdahl's law, from that of two workers; never more than `workers`."""
    undivided = max(0.0, 2.0 / ratio - 1.0)
    return 1.0 / (undivided + (1.0 - undivided) / workers)


class _Pace(NamedTuple):
    """Readings a second of the clock, and of the processors' time."""

    wall: float
    processor: float


def _measure(
    engines: dict[int, Engine],
    sources: Sequence[Source],
    models: tuple[Model, ...],
    output: Path,
) -> dict[int, list[_Pace]]:
    """Return the pace of every repeat, by the number of workers."""
    paces: dict[int, list[_Pace]] = {workers: [] for workers in engines}
    for repeat in range(REPEATS + 1):
        for workers, engine in engines.items():
            started_s = time.monotonic()
            report = rescore_recordings(engine, sources, models, output / f"{workers}-{repeat}")
            taken_s = time.monotonic() - started_s
            if repeat:  # the first one starts the workers and loads the model
                pace = _Pace(report.readings / taken_s, report.readings / report.processor_s)
                paces[workers].append(pace)
    return paces
