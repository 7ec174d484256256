"""Daemon: teaching smells to a rig: the actions of `request/enroll`, and what the nose gets of it.

Joins the history, the store of taught smells (`calibration.smell_store`) and the nose; runs in the
pipeline's thread, and uses the disk in another one. Knows no broker. `scentd enroll` uses the same
object where no service runs.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

from calibration.exposure_curve import MOST_POINTS
from calibration.recogniser import fit_recogniser
from calibration.response_preview import advise
from calibration.smell_learning import LEAST_EXPOSURE_S
from calibration.smell_origin import RigIdentity
from calibration.smell_preview import SmellComparison, preview_smell
from calibration.smell_set import TaughtAir
from calibration.smell_store import SmellStore
from calibration.unmixing import unmixing_of_smells
from daemon.board.capture import capture_from_history
from daemon.enroll_answers import (
    EXPORTED,
    advice_summary,
    export_library,
    list_exposures,
    list_smells,
    preview_summary,
    taught_summary,
)
from daemon.request_fields import (
    Action,
    Actions,
    RequestError,
    flag,
    names,
    number,
    path_below,
    text,
)
from daemon.smell_files import import_file
from daemon.system.background import Short, at_once, describe_progress
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from calibration.response_preview import Advice
    from calibration.smell_learning import LearntExposure
    from calibration.smell_preview import Preview, ReplayComparison
    from calibration.smell_set import SmellSet
    from daemon.board.history import History
    from daemon.request_fields import Field
    from daemon.system.background import Data, OnDisk, Steps
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

TEACH_S = 120.0
"""Default seconds of an exposure that is taught."""

MOST_S = 600.0

LISTED_POINTS = 60
"""Default points of a channel's curve: sixteen exposures take 60 KB."""


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
    identity: returns what the rig knows of itself.
    on_disk: calls what uses the disk: the methods that say so, and the store's.

    Attributes
    ----------
    handle: the actions of `request/enroll`.
    identity: as given.
    """

    def __init__(
        self,
        store: SmellStore,
        apply: Callable[[TaughtSmells], None] = lambda _smells: None,
        *,
        history: History | None = None,
        settings: NoseSettings | None = None,
        air: Callable[[], ExposureStream] | None = None,
        identity: Callable[[], RigIdentity] = RigIdentity,
        on_disk: OnDisk = at_once,
    ) -> None:
        self.store = store
        self.identity = identity
        self._on_disk = on_disk
        self._numbers = count(1)
        self._used = 0
        self._air = air
        self._apply = apply
        self._history = history
        self._settings = settings
        self._log = get_logger("teaching")
        label, seconds = text(), partial(number, LEAST_EXPOSURE_S, MOST_S)

        def change(method: Callable[..., Any], **fields: Field) -> Action:
            return _rig_action(
                lambda **values: Short(self._change(partial(method, store, **values))), **fields
            )

        def answer(function: Callable[..., Data], **fields: Field) -> Action:
            return _rig_action(
                lambda **values: Short(
                    on_disk(partial(function, store, **values), doing="reading the library")
                ),
                **fields,
            )

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
            list=answer(list_smells),
            exposures=answer(
                list_exposures,
                label=label,
                points=number(0, MOST_POINTS, LISTED_POINTS),
            ),
            forget=change(SmellStore.forget, label=label, exposure=text(None)),
            export=answer(
                lambda store: export_library(
                    store, store.folder.parent / EXPORTED, self.identity(), EXPORTED
                )
            ),
            **{
                "import": _rig_action(
                    lambda **values: Short(self._import(**values)),
                    path=path_below(store.folder.parent),
                    **dict.fromkeys(("check", "merge", "other_board"), flag(default=False)),
                    rename=names({}),
                )
            },
            rename=change(SmellStore.rename, label=label, name=text()),
            hide=change(SmellStore.hide, label=label),
            unhide=change(SmellStore.unhide, label=label),
            promote=change(SmellStore.promote, label=text(None)),
            rollback=change(SmellStore.rollback),
            reload=change(SmellStore.smells),
        )

    def is_announced(self, label: str) -> bool:
        """Whether a smell of this label was taught and is not in shadow; uses the disk."""
        smells = self.store.smells()
        return label in smells and not smells.smell(label).shadow

    def load(self) -> None:
        """Read here what was taught, give it to the nose, and log what cannot be used."""
        self._use(*self._read())

    def renew(self) -> Steps:
        """Give the nose what is taught now."""
        self._use(*(yield from self._on_disk(self._read, doing="reading what was taught")))
        return {}

    def with_correction(self, correction: Correction | None) -> Callable[[], None]:
        """Process the taught exposures through another correction of the rig's readings.

        Uses the disk. The correction must not be the instance that the running nose uses. Returns
        what to call, in the pipeline's thread, to give the nose the result.
        """
        self.store.use_correction(correction)
        return partial(self._use, *self._read())

    def _read(self) -> tuple[int, TaughtSmells]:
        """Return what the nose is given of the library, with a number that rises; uses the disk."""
        return next(self._numbers), taught_smells(self.store)

    def _use(self, number: int, smells: TaughtSmells) -> None:
        """Give the nose what was read, unless it was given what was read later."""
        if number < self._used:
            return
        self._used = number
        for problem in smells.problems:
            self._log.error(problem)
        self._apply(smells)

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

        def enroll() -> tuple[SmellSet, LearntExposure, tuple[int, TaughtSmells]]:
            smells, learned = store.enroll(
                label,
                recording,
                source=source,
                session=session,
                start_ms=start_ms,
                promote=promote,
                clean_air=clean_air,
            )
            return smells, learned, self._read()

        smells, learned, read = yield from self._on_disk(enroll, doing="learning")
        self._use(*read)
        effect_ms = _ms_since(started_s)
        label = label.strip()
        self._log.info("taught", label=label, effect_ms=round(effect_ms))
        yield {"doing": "rehearsing", "share": 0.0}

        def judge() -> tuple[Preview, Advice | None, SmellComparison]:
            advice = advise(store.taught_exposures(shadow=label))
            return preview_smell(store, label), advice, SmellComparison(store, label)

        preview, advice, comparison = yield from self._on_disk(judge, doing="rehearsing")
        compared = []
        for name, earlier, exposed in past:
            steps = comparison.replay(earlier, settings=self._settings, assume_exposed=exposed)
            compared.append((yield from _compare(steps, name)))
        return {
            **taught_summary(store, smells.smell(label), smells.version, learned),
            "effect_ms": effect_ms,
            "rehearsal": preview_summary(preview),
            "advice": advice_summary(advice),
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

    def _import(self, *, path: Callable[[], Path], check: bool, **choices: Any) -> Steps:
        """Import a file, or only find out what that would do."""

        def read_file() -> Data:
            return import_file(self.store, path(), self.identity(), check=check, **choices)

        if check:
            return (yield from self._on_disk(read_file, doing="reading the file"))
        plans: list[Data] = []
        changed = yield from self._change(lambda: plans.append(read_file()))
        return {**changed, "imported": plans[0]}

    def _change(self, change: Callable[[], object]) -> Steps:
        """Change the library, give the nose what is taught now, and return it."""
        started_s = time.perf_counter()

        def change_and_read() -> tuple[Data, tuple[int, TaughtSmells]]:
            change()
            read = self._read()
            return list_smells(self.store), read

        listed, read = yield from self._on_disk(change_and_read, doing="changing the library")
        self._use(*read)
        return {**listed, "effect_ms": _ms_since(started_s)}


def _ms_since(started_s: float) -> float:
    return round((time.perf_counter() - started_s) * 1000.0, 1)


def _rig_action(
    method: Callable[..., Data | Steps | Short], exclusive: tuple[str, ...] = (), /, **fields: Field
) -> Action:
    """Return an action that ignores the model which requests of earlier versions name.

    What is taught belongs to the rig, not to one of its models.
    """

    def do(*, model: str | None, **values: Any) -> Data | Steps | Short:
        del model
        return method(**values)

    return Action(do, exclusive, model=text(None), **fields)


def _compare(steps: Generator[float, None, ReplayComparison], name: str) -> Steps:
    doing = f"hearing {name} again"
    result = yield from describe_progress(steps, lambda share: {"doing": doing, "share": share})
    return {"recording": name, "without_s": dict(result.without_s), "with_s": dict(result.with_s)}
