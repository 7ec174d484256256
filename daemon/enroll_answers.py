"""Daemon: what the answers to `request/enroll` say of the library: its smells and their exposures.

Reads the library, which uses the disk; `export_library` writes a file. Knows no nose.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from calibration.exposure_curve import exposure_curve
from calibration.response_preview import NAMED_FROM_ONE_EXPOSURE, HeldOutBy
from calibration.smell_exchange import export_smells
from hardware.recording import RecordingError
from models.recogniser import TAUGHT

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from calibration.response_preview import Advice
    from calibration.smell_learning import LearntExposure
    from calibration.smell_origin import RigIdentity
    from calibration.smell_preview import Preview
    from calibration.smell_set import Exposure, Smell
    from calibration.smell_store import SmellStore
    from daemon.system.background import Data

MAX_CONFUSIONS = 3
"""Labels in a list of confusions at most."""

EXPORTED = "exports/smells.zip"
"""The last export by request, below the state folder; the page sends the file from there."""


def list_smells(store: SmellStore) -> Data:
    """Return what is taught, in shadow, hidden and renamed."""
    smells = store.smells()
    return {
        "model": next(iter(store.bundles), TAUGHT),
        "version": smells.version,
        "change": smells.change,
        "smells": [
            {
                "label": smell.label,
                "negative": smell.is_negative,
                "shadow": smell.shadow,
                "exposures": len(smell.exposures),
                "sessions": len({exposure.sitting for exposure in smell.exposures}),
                "windows": sum(exposure.windows for exposure in smell.exposures),
                "seconds": round(sum(exposure.seconds for exposure in smell.exposures), 1),
                "taught": max(exposure.date for exposure in smell.exposures),
                "other_board": any(exposure.other_board for exposure in smell.exposures),
            }
            for smell in smells.smells
        ],
        "hidden": list(smells.hidden),
        "renamed": dict(smells.renamed),
    }


def list_exposures(store: SmellStore, *, label: str, points: float) -> Data:
    """Return the exposures of a smell by session, each with its curve of so many points."""
    smell = store.smells().smell(label)
    sessions: dict[str, list[Data]] = {}
    for exposure in smell.exposures:
        sessions.setdefault(exposure.sitting, []).append(
            {
                "id": exposure.id,
                "taught": exposure.date,
                "source": exposure.source,
                "seconds": exposure.seconds,
                "windows": exposure.windows,
                "curve": _curve(store, exposure, int(points)),
            }
        )
    return {
        "label": smell.label,
        "shadow": smell.shadow,
        "sessions": [{"session": name, "exposures": found} for name, found in sessions.items()],
    }


def _curve(store: SmellStore, exposure: Exposure, points: int) -> Data | None:
    """Return the curve of an exposure; None where none is wanted or its readings are lost."""
    if points == 0:
        return None
    try:
        return dict(exposure_curve(store.recording(exposure), exposure.start_ms, points))
    except RecordingError:
        return None


def export_library(store: SmellStore, path: Path, identity: RigIdentity, called: str) -> Data:
    """Write the taught smells into one file; return what was written, and how it is `called`."""
    smells = export_smells(store, path, identity)
    return {"file": called, "exported": len(smells.smells), "bytes": path.stat().st_size}


def taught_summary(store: SmellStore, smell: Smell, version: int, learned: LearntExposure) -> Data:
    """Return what was learnt from an exposure, and what its smell is taught by now."""
    return {
        "model": next(iter(store.bundles), TAUGHT),
        "label": smell.label,
        "version": version,
        "negative": smell.is_negative,
        "shadow": smell.shadow,
        "exposures": len(smell.exposures),
        "sessions": len({exposure.sitting for exposure in smell.exposures}),
        "windows": learned.windows,
        "seconds": round(learned.seconds, 1),
        "response_s": round(learned.response_s, 1),
        "clean_air": learned.clean_air,
        "channels_missing": list(learned.channels_missing),
    }


def advice_summary(advice: Advice | None) -> Data | None:
    """Return advice as plain data."""
    return None if advice is None else dataclasses.asdict(advice)


def preview_summary(preview: Preview) -> Data:
    """Return how well a smell was learnt, with the worst confusions."""
    others = {name: share for name, share in preview.held_out.items() if name != preview.label}
    judged = preview.held_out_by is not HeldOutBy.NOTHING
    return {
        "before": _shares(preview.before)[:MAX_CONFUSIONS],
        "held_out": round(preview.held_out.get(preview.label, 0.0), 3) if judged else None,
        "held_out_by": str(preview.held_out_by),
        "rigs_from_one": None if judged else list(NAMED_FROM_ONE_EXPOSURE),
        "confused_with": _shares(others)[:MAX_CONFUSIONS],
        "taken_from": _shares(preview.taken_from),
    }


def _shares(shares: Mapping[str, float]) -> list[Data]:
    return [{"label": label, "share": round(share, 3)} for label, share in shares.items()]
