"""Daemon: teaching smells to a rig: the actions of `request/enroll`, and what the nose gets of it.

Joins the history, the store of taught smells (`calibration.smell_store`) and the nose; runs in the
pipeline's thread. Knows no broker. `scentd enroll` uses the same object where no service runs.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from calibration.exposure_curve import MOST_POINTS, exposure_curve
from calibration.recogniser import fit_recogniser
from calibration.response_preview import NAMED_FROM_ONE_EXPOSURE, HeldOutBy, advise
from calibration.smell_exchange import export_smells, import_smells
from calibration.smell_learning import LEAST_EXPOSURE_S
from calibration.smell_preview import compare_replay, preview_smell
from calibration.smell_set import TaughtAir
from calibration.smell_store import SmellStore
from calibration.unmixing import unmixing_of_smells
from daemon.board.capture import capture_from_history
from daemon.request_fields import (
    Action,
    Actions,
    RequestError,
    flag,
    number,
    path_below,
    text,
)
from daemon.system.background import describe_progress
from daemon.system.logs import get_logger
from hardware.errors import ScentdError
from hardware.recording import RecordingError
from models.recogniser import TAUGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from calibration.response_preview import Advice
    from calibration.smell_learning import LearntExposure
    from calibration.smell_preview import Preview, ReplayComparison
    from calibration.smell_set import Exposure, Smell
    from daemon.board.history import History
    from daemon.request_fields import Field
    from daemon.system.background import Data, Steps
    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from models.exposure_stream import ExposureStream
    from models.nose import NoseSettings
    from models.recogniser import Recogniser
    from models.taught_head import TaughtHead
    from models.unmixing import Unmixing

ENROLL = "enroll"
"""Name of the request."""

MAX_CONFUSIONS = 3
"""Labels in a list of confusions at most."""

TEACH_S = 120.0
"""Default seconds of an exposure that is taught."""

MOST_S = 600.0

LISTED_POINTS = 60
"""Default points of a channel's curve: sixteen exposures take 60 KB."""

EXPORTED = "exports/smells.zip"
"""Of the last export by request, below the state folder; by it a page sends the file."""


def rig_smells(
    bundles: Iterable[Bundle], state_dir: Path, correction: Correction | None = None
) -> SmellStore:
    """Return the library of a rig, which those of its models learn that can compare embeddings.

    `correction` must not be the instance that the running nose uses.
    """
    able = [
        bundle
        for bundle in bundles
        if bundle.manifest.task == "substance" and bundle.space is not None
    ]
    return SmellStore(state_dir, able, correction)


@dataclass(frozen=True, slots=True, eq=False)
class TaughtSmells:
    """What the nose is given of the library.

    Attributes
    ----------
    heads: of the models, by name.
    recogniser: of the rig, None where nothing was taught above known clean air.
    unmixing: of the rig, None where fewer than two smells were.
    problems: a sentence for each exposure, or all of the library, that cannot be used.
    """

    heads: Mapping[str, TaughtHead]
    recogniser: Recogniser | None
    unmixing: Unmixing | None
    problems: Sequence[str]


def taught_smells(store: SmellStore) -> TaughtSmells:
    """Return what the library makes of the smells; nothing where it cannot be read."""
    try:
        heads, problems = store.heads()
        exposures = store.taught_exposures()
        recogniser = fit_recogniser(exposures, store.negatives()) if exposures else None
        return TaughtSmells(heads, recogniser, unmixing_of_smells(exposures), problems)
    except (ScentdError, OSError) as error:
        return TaughtSmells({}, None, None, [f"The taught smells are left out: {error}"])


class Enrolment:
    """Changes the smells of a rig, and gives the nose the new heads at once.

    Parameters
    ----------
    store: the rig's library.
    apply: called with what the nose is given of it.
    history: the last minutes of a running service's readings.
    settings: of the nose, to process earlier readings again.
    air: returns the air before the running service's board.

    Attributes
    ----------
    handle: the actions of `request/enroll`.
    """

    def __init__(
        self,
        store: SmellStore,
        apply: Callable[[TaughtSmells], None] = lambda _smells: None,
        *,
        history: History | None = None,
        settings: NoseSettings | None = None,
        air: Callable[[], ExposureStream] | None = None,
    ) -> None:
        self.store = store
        self._air = air
        self._apply = apply
        self._history = history
        self._settings = settings
        self._log = get_logger("teaching")
        label, seconds = text(), partial(number, LEAST_EXPOSURE_S, MOST_S)

        def change(method: Callable[..., Any], **fields: Field) -> Action:
            return _rig_action(partial(self._change, method), **fields)

        self.handle = Actions(
            "teach",
            teach=_rig_action(
                self._teach_live,
                ("last_s", "seconds"),
                label=label,
                last_s=seconds(None),
                seconds=seconds(TEACH_S),
                promote=flag(default=False),
                past=flag(default=True),
            ),
            list=_rig_action(partial(list_smells, store)),
            exposures=_rig_action(
                partial(list_exposures, store),
                label=label,
                points=number(0, MOST_POINTS, LISTED_POINTS),
            ),
            forget=change(SmellStore.forget, label=label, exposure=text(None)),
            export=_rig_action(partial(_export, store)),
            **{"import": change(import_smells, path=path_below(store.folder.parent))},
            rename=change(SmellStore.rename, label=label, name=text()),
            hide=change(SmellStore.hide, label=label),
            unhide=change(SmellStore.unhide, label=label),
            promote=change(SmellStore.promote, label=text(None)),
            rollback=change(SmellStore.rollback),
            reload=change(SmellStore.smells),
        )

    def is_announced(self, label: str) -> bool:
        """Whether a smell of this label was taught and is not in shadow."""
        smells = self.store.smells()
        return label in smells and not smells.smell(label).shadow

    def load(self) -> None:
        """Give the nose what was taught, and log what cannot be used."""
        smells = taught_smells(self.store)
        for problem in smells.problems:
            self._log.error(problem)
        self._apply(smells)

    def set_correction(self, correction: Correction | None) -> None:
        """Process the taught exposures through another correction of the rig's readings.

        It must not be the instance that the running nose uses.
        """
        self.store.use_correction(correction)
        self.load()

    def teach(
        self,
        label: str,
        recording: Recording,
        *,
        source: str,
        session: str = "",
        start_ms: int = 0,
        promote: bool = False,
        past: Sequence[tuple[str, Recording, bool]] = (),
        clean_air: TaughtAir | None = None,
    ) -> Steps:
        """Teach one exposure, give the nose what is taught now, then return what it changes.

        The recordings of `past` (name, recording, whether it lies in one exposure) are processed
        without the smell and with it; the other parameters are those of `SmellStore.enroll`.
        """
        started_s, store = time.perf_counter(), self.store
        smells, learned = store.enroll(
            label,
            recording,
            source=source,
            session=session,
            start_ms=start_ms,
            promote=promote,
            clean_air=clean_air,
        )
        label = label.strip()
        effect_ms = self._renew(started_s)
        self._log.info("taught", label=label, effect_ms=round(effect_ms))
        yield {"doing": "rehearsing", "share": 0.0}
        rehearsal = _preview_summary(preview_smell(store, label))
        compared = []
        for name, earlier, exposed in past:
            steps = compare_replay(
                store, label, earlier, settings=self._settings, assume_exposed=exposed
            )
            compared.append((yield from _compare(steps, name)))
        return {
            **_taught_summary(store, smells.smell(label), smells.version, learned),
            "effect_ms": effect_ms,
            "rehearsal": rehearsal,
            "advice": _advice(advise(store.taught_exposures(shadow=label))),
            "past": compared,
        }

    def _teach_live(
        self,
        *,
        label: str,
        last_s: float | None,
        seconds: float,
        promote: bool,
        past: bool,
    ) -> Steps:
        """Teach the last seconds, or the coming ones."""
        history = self._history
        if history is None:
            raise RequestError("No service reads the board, so name recordings to learn from.")
        if last_s is not None:
            history.last(last_s)  # raises an error if there are fewer
        wanted_s = seconds if last_s is None else last_s

        def steps() -> Steps:
            if last_s is None:
                yield from describe_progress(
                    capture_from_history(history, wanted_s),
                    lambda capture: {"doing": "smelling", "share": capture.seconds / wanted_s},
                )
            # All earlier readings are passed on too: the onset needs their clean air. Where the
            # smell began before them, the running nose still knows what was clean.
            whole = history.since(-1)
            known = self._clean_air_now()
            start_ms = int(whole.t_ms[-1] - whole.t_ms[0] - wanted_s * 1000.0)
            recording = whole.recording()
            minutes = f"the last {whole.seconds / 60:.0f} min"
            return (
                yield from self.teach(
                    label,
                    recording,
                    source="live",
                    start_ms=max(0, start_ms),
                    promote=promote,
                    past=[(minutes, recording, False)] if past else [],
                    clean_air=known,
                )
            )

        return steps()

    def _clean_air_now(self) -> TaughtAir | None:
        """Return clean air as the running nose knows it at the newest reading."""
        stream = None if self._air is None else self._air()
        known = None if stream is None else stream.clean_air
        if stream is None or known is None:
            return None
        correction = self.store.correction
        calibration = "" if correction is None else correction.id
        return TaughtAir.of(known.signals, known.source, stream.clean_air_age_s, calibration)

    def _change(self, method: Callable[..., Any], **fields: Any) -> Data:
        """Change the library, give the nose what is taught now, and return it."""
        started_s = time.perf_counter()
        method(self.store, **fields)
        effect_ms = self._renew(started_s)
        return {**list_smells(self.store), "effect_ms": effect_ms}

    def _renew(self, started_s: float) -> float:
        """Give the nose what is taught now; return the milliseconds since `started_s`."""
        self.load()
        return round((time.perf_counter() - started_s) * 1000.0, 1)


def _rig_action(
    method: Callable[..., Data | Steps], exclusive: tuple[str, ...] = (), /, **fields: Field
) -> Action:
    """Return an action that ignores the model which requests of earlier versions name.

    What is taught belongs to the rig, not to one of its models.
    """

    def do(*, model: str | None, **values: Any) -> Data | Steps:
        del model
        return method(**values)

    return Action(do, exclusive, model=text(None), **fields)


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


def _export(store: SmellStore) -> Data:
    """Write the taught smells into one file below the state folder; return its path there."""
    path = store.folder.parent / EXPORTED
    smells = export_smells(store, path)
    return {"file": EXPORTED, "exported": len(smells.smells), "bytes": path.stat().st_size}


def _taught_summary(store: SmellStore, smell: Smell, version: int, learned: LearntExposure) -> Data:
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


def _advice(advice: Advice | None) -> Data | None:
    return None if advice is None else dataclasses.asdict(advice)


def _preview_summary(preview: Preview) -> Data:
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


def _compare(steps: Generator[float, None, ReplayComparison], name: str) -> Steps:
    doing = f"hearing {name} again"
    result = yield from describe_progress(steps, lambda share: {"doing": doing, "share": share})
    return {"recording": name, "without_s": dict(result.without_s), "with_s": dict(result.with_s)}


def _shares(shares: Mapping[str, float]) -> list[Data]:
    return [{"label": label, "share": round(share, 3)} for label, share in shares.items()]
