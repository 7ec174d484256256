"""Daemon: teaching smells to a running rig: what `request/enroll` asks, and the heads of the nose.

Joins the history, the store of taught smells (`calibration.smell_store`) and the nose; lives in the
pipeline's thread. Knows no broker. `scentd enroll` without a service runs this very object.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.smell_preview import MAX_LISTED, compare_replay, preview_smell
from calibration.smell_set import SmellError
from calibration.smell_store import SmellStore
from daemon.board.capture import capture_from_history
from daemon.requests import RequestError, number_of, only, text_of
from daemon.system.background import describe_progress
from daemon.system.logs import get_logger
from hardware.errors import ScentdError
from hardware.recording import read_recording

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from calibration.enrolment import LearnedExposure
    from calibration.smell_preview import Preview, ReplayComparison
    from calibration.smell_set import SmellSet
    from daemon.board.history import History, ReadingSpan
    from daemon.system.background import Data, Steps
    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from models.nose import NoseSettings
    from models.taught_head import TaughtHead

ENROLL = "enroll"
"""The request's name."""

TEACH_S = 120.0
"""Seconds of a smell that are learnt unless said otherwise."""

LEAST_S, MOST_S = 5.0, 600.0


def stores_of(
    bundles: Iterable[Bundle], state_dir: Path, correction: Correction | None = None
) -> dict[str, SmellStore]:
    """Return the store of every model that can be taught, by its name.

    Parameters
    ----------
    bundles : iterable of Bundle
        The rig's models.
    state_dir : Path
        The rig's.
    correction : Correction, optional
        Of the rig's readings; an instance of its own, apart from the running nose's.
    """
    return {
        bundle.manifest.name: SmellStore(state_dir, bundle, correction)
        for bundle in bundles
        if bundle.manifest.task == "substance" and bundle.space is not None
    }


def heads_of(stores: Mapping[str, SmellStore]) -> tuple[dict[str, TaughtHead], list[str]]:
    """Return every model's head, and sentences about what could not be used.

    A store that cannot be read costs its head and no more: the rig goes on with what is shipped.
    """
    heads, problems = {}, []
    for model, store in stores.items():
        try:
            heads[model], told = store.head()
            problems += told
        except (ScentdError, OSError) as error:
            problems.append(f"The smells taught to {model} are left out: {error}")
    return heads, problems


class Enrolment:
    """Does what is asked of the taught smells, and lets the nose know at once.

    Parameters
    ----------
    stores : mapping
        By model, of those that can be taught.
    apply : callable
        Takes a model and its new head.
    history : History, optional
        The last minutes of a running service's readings.
    settings : NoseSettings, optional
        The rig owner's, for hearing the past again.
    """

    def __init__(
        self,
        stores: Mapping[str, SmellStore],
        apply: Callable[[str, TaughtHead], None] = lambda _model, _head: None,
        *,
        history: History | None = None,
        settings: NoseSettings | None = None,
    ) -> None:
        self._stores = stores
        self._apply = apply
        self._history = history
        self._settings = settings
        self._log = get_logger("teaching")
        # A nose that was never told anything needs no empty head: it would drop its evidence.
        self._changed: set[str] = set()
        self._actions: dict[str, Callable[[Data], Data | Steps]] = {
            "teach": self._teach_live,
            "list": self._list,
            "forget": lambda data: self._change(data, ("label",), SmellStore.forget),
            "rename": lambda data: self._change(data, ("label", "name"), SmellStore.rename),
            "hide": lambda data: self._change(data, ("label",), SmellStore.hide),
            "unhide": lambda data: self._change(data, ("label",), SmellStore.unhide),
            "promote": lambda data: self._change(data, ("label",), SmellStore.promote),
            "rollback": lambda data: self._change(data, (), SmellStore.rollback),
            "reload": lambda data: self._change(data, (), SmellStore.smells),
        }

    def begin(self) -> None:
        """Give the nose what was taught before this start, and log what cannot be used."""
        heads, problems = heads_of(self._stores)
        for problem in problems:
            self._log.error(problem)
        for model, head in heads.items():
            if not head.empty or model in self._changed:
                self._let_know(model, head)

    def calibrate(self, correction: Correction | None) -> None:
        """Hear what was taught through another calibration of the rig.

        Parameters
        ----------
        correction : Correction, optional
            An instance of its own, apart from the running nose's; None for none.
        """
        for store in self._stores.values():
            store.use_correction(correction)
        self.begin()

    def handle(self, payload: Data) -> Data | Steps:
        """Do what `request/enroll` asks.

        Parameters
        ----------
        payload : dict
            `action` (teach unless said otherwise) and its fields.

        Raises
        ------
        ScentdError
            If it cannot be done.
        """
        action = text_of(payload, "action", "teach")
        if action not in self._actions:
            raise RequestError(
                f"action must be one of {', '.join(self._actions)}, and {action!r} came."
            )
        return self._actions[action]({k: v for k, v in payload.items() if k != "action"})

    def store(self, model: str | None = None) -> SmellStore:
        """Return a model's store, or the only or first one.

        Raises
        ------
        SmellError
            If there is none.
        """
        if not self._stores:
            raise SmellError(
                "None of the rig's models can be taught: teaching needs a model of single "
                "substances whose bundle holds its class means. Add one, or install a newer "
                "version."
            )
        if model is None:
            return next(iter(self._stores.values()))
        if model not in self._stores:
            raise SmellError(
                f"{model} cannot be taught. Models that can: {', '.join(self._stores)}."
            )
        return self._stores[model]

    def teach(
        self,
        store: SmellStore,
        label: str,
        recording: Recording,
        *,
        source: str,
        start_ms: int = 0,
        promote: bool = False,
        past: Sequence[tuple[str, Recording, bool]] = (),
    ) -> Steps:
        """Teach one exposure, let the nose know, then tell what it would have said.

        Parameters
        ----------
        store : SmellStore
            Of the model.
        label, recording, source, start_ms, promote
            As `SmellStore.enroll` takes them.
        past : sequence of (name, recording, whether it lies within one exposure)
            Recordings to hear again, without the smell and with it.
        """
        began_s = time.perf_counter()
        smells, lesson = store.enroll(
            label, recording, source=source, start_ms=start_ms, promote=promote
        )
        label = label.strip()
        self._renew(store)
        effect_ms = (time.perf_counter() - began_s) * 1000.0
        self._log.info("taught", model=store.model, label=label, effect_ms=round(effect_ms))
        yield {"doing": "rehearsing", "share": 0.0}
        told = _rehearsal(preview_smell(store, label))
        heard = []
        for name, earlier, exposed in past:
            steps = compare_replay(
                store, label, earlier, settings=self._settings, assume_exposed=exposed
            )
            heard.append((yield from _heard_again(steps, name)))
        return {
            **_taught(smells, label, lesson),
            "effect_ms": round(effect_ms, 1),
            "rehearsal": told,
            "past": heard,
        }

    def _teach_live(self, payload: Data) -> Steps:
        """Teach the last seconds, or the coming ones."""
        only(payload, ("label", "last_s", "seconds", "promote", "model", "past"))
        store = self.store(_model(payload))
        label, promote = text_of(payload, "label"), _flag(payload, "promote", default=False)
        if "last_s" in payload and "seconds" in payload:
            raise RequestError("Give last_s (what has been) or seconds (what comes), not both.")
        if self._history is None:
            raise RequestError("No service listens to the board, so name recordings to learn from.")
        history = self._history
        if "last_s" in payload:
            seconds = number_of(payload, "last_s", low=LEAST_S, high=MOST_S)
            history.last(seconds)  # refuses at once what is not there
        else:
            seconds = number_of(payload, "seconds", TEACH_S, low=LEAST_S, high=MOST_S)
        again = _flag(payload, "past", default=True)

        def steps() -> Steps:
            if "last_s" not in payload:
                yield from describe_progress(
                    capture_from_history(history, seconds),
                    lambda taken: {"doing": "smelling", "share": taken.seconds / seconds},
                )
            # All that is known of the air before goes along: the onset stands out against it.
            whole = history.since(-1)
            start_ms = int(whole.t_ms[-1] - whole.t_ms[0] - seconds * 1000.0)
            recording = recording_of(whole)
            minutes = f"the last {whole.seconds / 60:.0f} min"
            return (
                yield from self.teach(
                    store,
                    label,
                    recording,
                    source="live",
                    start_ms=max(0, start_ms),
                    promote=promote,
                    past=[(minutes, recording, False)] if again else [],
                )
            )

        return steps()

    def _list(self, payload: Data) -> Data:
        only(payload, ("model",))
        return described(self.store(_model(payload)))

    def _change(self, payload: Data, fields: tuple[str, ...], change: Callable[..., Any]) -> Data:
        """Do one change of a store, let the nose know, and say what there is now."""
        only(payload, (*fields, "model"))
        store = self.store(_model(payload))
        began_s = time.perf_counter()
        change(store, *(text_of(payload, name) for name in fields))
        self._renew(store)
        effect_ms = (time.perf_counter() - began_s) * 1000.0
        return {**described(store), "effect_ms": round(effect_ms, 1)}

    def _renew(self, store: SmellStore) -> None:
        head, problems = store.head()
        for problem in problems:
            self._log.warning(problem)
        self._let_know(store.model, head)

    def _let_know(self, model: str, head: TaughtHead) -> None:
        self._changed.add(model)
        self._apply(model, head)


def recording_of(stretch: ReadingSpan) -> Recording:
    """Return a stretch of the history as a recording, judged as one is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.csv"
        stretch.write(path)
        return read_recording(path)


def described(store: SmellStore) -> Data:
    """Return what is taught, in shadow, hidden and renamed."""
    smells = store.smells()
    return {
        "model": store.model,
        "version": smells.version,
        "change": smells.change,
        "smells": [
            {
                "label": smell.label,
                "shadow": smell.shadow,
                "exposures": len(smell.exposures),
                "windows": sum(exposure.windows for exposure in smell.exposures),
                "seconds": round(sum(exposure.seconds for exposure in smell.exposures), 1),
                "taught": max(exposure.date for exposure in smell.exposures),
            }
            for smell in smells.smells
        ],
        "hidden": list(smells.hidden),
        "renamed": dict(smells.renamed),
    }


def _taught(smells: SmellSet, label: str, lesson: LearnedExposure) -> Data:
    smell = smells.smell(label)
    return {
        "model": smells.model,
        "label": label,
        "version": smells.version,
        "shadow": smell.shadow,
        "exposures": len(smell.exposures),
        "windows": len(lesson),
        "seconds": round(lesson.seconds, 1),
        "channels_missing": list(lesson.channels_missing),
    }


def _rehearsal(told: Preview) -> Data:
    return {
        "before": _shares(told.before.shares[:MAX_LISTED]),
        "held_out": round(told.held_out.share(told.label), 3),
        "held_out_by": "exposure" if told.by_exposures else "half",
        "confused_with": _shares(told.held_out.others(told.label)),
        "taken_from": _shares(told.taken_from),
    }


def _heard_again(steps: Generator[float, None, ReplayComparison], name: str) -> Steps:
    doing = f"hearing {name} again"
    told = yield from describe_progress(steps, lambda share: {"doing": doing, "share": share})
    return {"recording": name, "without_s": dict(told.without_s), "with_s": dict(told.with_s)}


def _shares(pairs: Iterable[tuple[str, float]]) -> list[Data]:
    return [{"label": label, "share": round(share, 3)} for label, share in pairs]


def _model(payload: Data) -> str | None:
    return text_of(payload, "model") if "model" in payload else None


def _flag(payload: Data, name: str, *, default: bool) -> bool:
    value = payload.get(name, default)
    if isinstance(value, bool):
        return value
    raise RequestError(f"{name} must be true or false, and {value!r} came.")
