"""Daemon: teaching smells to a rig: the actions of `request/enroll`, and the heads of the nose.

Joins the history, the store of taught smells (`calibration.smell_store`) and the nose; runs in the
pipeline's thread. Knows no broker. `scentd enroll` uses the same object where no service runs.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from calibration.smell_preview import compare_replay, preview_smell
from calibration.smell_set import SmellError
from calibration.smell_store import SmellStore
from daemon.board.capture import capture_from_history
from daemon.request_fields import Action, Actions, RequestError, flag, number, text
from daemon.system.background import describe_progress
from daemon.system.logs import get_logger
from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
    from pathlib import Path

    from calibration.enrolment import LearnedExposure
    from calibration.smell_preview import Preview, ReplayComparison
    from calibration.smell_set import SmellSet
    from daemon.board.history import History
    from daemon.request_fields import Field
    from daemon.system.background import Data, Steps
    from hardware.recording import Recording
    from models.bundle import Bundle
    from models.correction import Correction
    from models.nose import NoseSettings
    from models.taught_head import TaughtHead

ENROLL = "enroll"
"""Name of the request."""

MAX_CONFUSIONS = 3
"""Labels in a list of confusions at most."""

TEACH_S = 120.0
"""Default seconds of an exposure that is taught."""

LEAST_S, MOST_S = 5.0, 600.0


def smell_stores(
    bundles: Iterable[Bundle], state_dir: Path, correction: Correction | None = None
) -> dict[str, SmellStore]:
    """Return the store of every model that can be taught, by the model's name.

    `correction` must not be the instance that the running nose uses.
    """
    return {
        bundle.manifest.name: SmellStore(state_dir, bundle, correction)
        for bundle in bundles
        if bundle.manifest.task == "substance" and bundle.space is not None
    }


def taught_heads(stores: Mapping[str, SmellStore]) -> tuple[dict[str, TaughtHead], list[str]]:
    """Return every model's head, and a sentence for each store or smell that cannot be used.

    A model whose store cannot be read works as shipped.
    """
    heads, problems = {}, []
    for model, store in stores.items():
        try:
            heads[model], partial_problems = store.head()
            problems += partial_problems
        except (ScentdError, OSError) as error:
            problems.append(f"The smells taught to {model} are left out: {error}")
    return heads, problems


class Enrolment:
    """Changes the smells of a rig, and gives the nose the new heads at once.

    Parameters
    ----------
    stores: of the models that can be taught, by name.
    apply: called with a model's name and its new head.
    history: the last minutes of a running service's readings.
    settings: of the nose, to process earlier readings again.

    Attributes
    ----------
    handle: the actions of `request/enroll`.
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
        self._apply_head = apply
        self._history = history
        self._settings = settings
        self._log = get_logger("teaching")
        self._changed: set[str] = set()
        model, label, seconds = text(None), text(), partial(number, LEAST_S, MOST_S)

        def change(method: Callable[..., Any], **fields: Field) -> Action:
            return Action(partial(self._change, method), model=model, **fields)

        self.handle = Actions(
            "teach",
            teach=Action(
                self._teach_live,
                ("last_s", "seconds"),
                label=label,
                last_s=seconds(None),
                seconds=seconds(TEACH_S),
                promote=flag(default=False),
                past=flag(default=True),
                model=model,
            ),
            list=Action(lambda model: list_smells(self.store(model)), model=model),
            forget=change(SmellStore.forget, label=label),
            rename=change(SmellStore.rename, label=label, name=text()),
            hide=change(SmellStore.hide, label=label),
            unhide=change(SmellStore.unhide, label=label),
            promote=change(SmellStore.promote, label=label),
            rollback=change(SmellStore.rollback),
            reload=change(SmellStore.smells),
        )

    def load(self) -> None:
        """Give the nose the stored heads, and log what cannot be used."""
        heads, problems = taught_heads(self._stores)
        for problem in problems:
            self._log.error(problem)
        for model, head in heads.items():
            # An empty head would needlessly reset the evidence of the nose.
            if not head.empty or model in self._changed:
                self._apply(model, head)

    def set_correction(self, correction: Correction | None) -> None:
        """Process the taught exposures through another correction of the rig's readings.

        It must not be the instance that the running nose uses.
        """
        for store in self._stores.values():
            store.use_correction(correction)
        self.load()

    def store(self, model: str | None = None) -> SmellStore:
        """Return a model's store, by default the first one; raise `SmellError` without one."""
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
        """Teach one exposure, give the nose the new head, then return what it changes.

        The recordings of `past` (name, recording, whether it lies in one exposure) are processed
        without the smell and with it; the other parameters are those of `SmellStore.enroll`.
        """
        started_s = time.perf_counter()
        smells, learned = store.enroll(
            label, recording, source=source, start_ms=start_ms, promote=promote
        )
        label = label.strip()
        effect_ms = self._renew_head(store, started_s)
        self._log.info("taught", model=store.model, label=label, effect_ms=round(effect_ms))
        yield {"doing": "rehearsing", "share": 0.0}
        rehearsal = _preview_summary(preview_smell(store, label))
        compared = []
        for name, earlier, exposed in past:
            steps = compare_replay(
                store, label, earlier, settings=self._settings, assume_exposed=exposed
            )
            compared.append((yield from _compare(steps, name)))
        return {
            **_taught_summary(smells, label, learned),
            "effect_ms": effect_ms,
            "rehearsal": rehearsal,
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
        model: str | None,
    ) -> Steps:
        """Teach the last seconds, or the coming ones."""
        store, history = self.store(model), self._history
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
            # All earlier readings are passed on too: the onset needs their clean air.
            whole = history.since(-1)
            start_ms = int(whole.t_ms[-1] - whole.t_ms[0] - wanted_s * 1000.0)
            recording = whole.recording()
            minutes = f"the last {whole.seconds / 60:.0f} min"
            return (
                yield from self.teach(
                    store,
                    label,
                    recording,
                    source="live",
                    start_ms=max(0, start_ms),
                    promote=promote,
                    past=[(minutes, recording, False)] if past else [],
                )
            )

        return steps()

    def _change(self, method: Callable[..., Any], *, model: str | None, **fields: str) -> Data:
        """Change a store, give the nose the new head, and return what is taught now."""
        store = self.store(model)
        started_s = time.perf_counter()
        method(store, **fields)
        effect_ms = self._renew_head(store, started_s)
        return {**list_smells(store), "effect_ms": effect_ms}

    def _renew_head(self, store: SmellStore, started_s: float) -> float:
        """Give the nose a store's head; return the milliseconds since `started_s`."""
        head, problems = store.head()
        for problem in problems:
            self._log.warning(problem)
        self._apply(store.model, head)
        return round((time.perf_counter() - started_s) * 1000.0, 1)

    def _apply(self, model: str, head: TaughtHead) -> None:
        self._changed.add(model)
        self._apply_head(model, head)


def list_smells(store: SmellStore) -> Data:
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


def _taught_summary(smells: SmellSet, label: str, learned: LearnedExposure) -> Data:
    smell = smells.smell(label)
    return {
        "model": smells.model,
        "label": label,
        "version": smells.version,
        "shadow": smell.shadow,
        "exposures": len(smell.exposures),
        "windows": len(learned),
        "seconds": round(learned.seconds, 1),
        "channels_missing": list(learned.channels_missing),
    }


def _preview_summary(preview: Preview) -> Data:
    others = {name: share for name, share in preview.held_out.items() if name != preview.label}
    return {
        "before": _shares(preview.before)[:MAX_CONFUSIONS],
        "held_out": round(preview.held_out.get(preview.label, 0.0), 3),
        "held_out_by": "exposure" if preview.by_exposures else "half",
        "confused_with": _shares(others)[:MAX_CONFUSIONS],
        "taken_from": _shares(preview.taken_from),
    }


def _compare(steps: Generator[float, None, ReplayComparison], name: str) -> Steps:
    doing = f"hearing {name} again"
    result = yield from describe_progress(steps, lambda share: {"doing": doing, "share": share})
    return {"recording": name, "without_s": dict(result.without_s), "with_s": dict(result.with_s)}


def _shares(shares: Mapping[str, float]) -> list[Data]:
    return [{"label": label, "share": round(share, 3)} for label, share in shares.items()]
