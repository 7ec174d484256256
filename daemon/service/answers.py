"""Daemon: an answer to a request in words, for people who read it in Home Assistant or on the page.

Pure: the data of an answer in, a few sentences out. Knows the data that the requests' handlers
return, but no broker and no page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.calibrate.live import CALIBRATE
from daemon.enroll import ENROLL
from daemon.installed_models.requests import MODELS
from daemon.recording.requests import RECORD
from daemon.requests import WORKING
from daemon.review.requests import FEEDBACK
from daemon.service.reload import RELOAD
from daemon.smell_files import plan_lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from daemon.system.background import Data

WORDS_LIMIT = 1000
"""Characters; a longer text is cut."""

DONE = "Done."
"""Describes an answer that no sentence is written for."""


def describe_answer(command: str, answer: Data) -> str:
    """Return an answer in words.

    Parameters
    ----------
    command: of the request.
    answer: `status`, `data` and `error`, as published on `response/COMMAND`.
    """
    data = answer["data"]
    if answer["error"] is not None:
        text = str(answer["error"])
    elif answer["status"] == WORKING:
        text = _progress(data)
    else:
        text = " ".join(_SENTENCES.get(command, _done)(data))
    return text[:WORDS_LIMIT]


def _progress(data: Data) -> str:
    doing = str(data.get("doing", "working"))
    share = data.get("share")
    return f"{doing}: {share:.0%}" if isinstance(share, int | float) else doing


def _done(_data: Data) -> Iterator[str]:
    yield DONE


def _smells(data: Data) -> Iterator[str]:
    """Describe what was taught, or all that is taught now."""
    if "rehearsal" in data:
        yield from _taught(data)
        return
    if "planned" in data or "imported" in data:
        plan = data.get("imported", data)
        yield from (line.strip() for line in plan_lines(plan, done="imported" in data))
        return
    if "smells" not in data:  # exposures or an export, which their readers show
        yield DONE
        return
    smells = [smell for smell in data["smells"] if not smell["negative"]]
    announced = [smell["label"] for smell in smells if not smell["shadow"]]
    shadow = [smell["label"] for smell in smells if smell["shadow"]]
    yield f"Taught and announced: {', '.join(announced) or 'nothing'}."
    if shadow:
        yield f"In shadow, not announced: {', '.join(shadow)}."


def _taught(data: Data) -> Iterator[str]:
    preview, label = data["rehearsal"], data["label"]
    if data["negative"]:
        yield from _taught_negative(data)
        return
    if preview["held_out"] is None:
        yield f"Learnt {label}. {from_one_exposure(preview['rigs_from_one'])}"
    else:
        what = f"a {preview['held_out_by']} that was left out"
        yield f"Learnt {label}: {preview['held_out']:.0%} of {what} is recognised."
    if preview["confused_with"]:
        yield f"The rest is taken for {_shares(preview['confused_with'])}."
    if preview["taken_from"]:
        yield f"It takes away from {_shares(preview['taken_from'])}."
    if data["clean_air"] is None:
        yield (
            "The clean air before it is not known. Begin the next exposure in clean air, so that "
            "the smell is known on other days."
        )
    if data["advice"] is not None:
        yield f"One more day of {data['advice']['label']} would help most."
    if data["shadow"]:
        yield "It is in shadow: promote it to announce it."
    else:
        yield "The rig announces it from now on."


def _taught_negative(data: Data) -> Iterator[str]:
    preview = data["rehearsal"]
    yield "Learnt as none of the taught smells."
    if preview["before"]:
        yield f"Without it, this was called {_shares(preview['before'])}."
    if preview["taken_from"]:
        yield f"Because of it, exposures lose their right name: {_shares(preview['taken_from'])}."
    if data["shadow"]:
        yield "It is in shadow: promote it to use it."


def _shares(shares: Sequence[Mapping[str, object]]) -> str:
    return ", ".join(f"{one['label']} ({one['share']:.0%})" for one in shares)


def from_one_exposure(shares: Sequence[float]) -> str:
    """Return what one exposure can tell of another day; `shares` are those of real rigs."""
    *others, last = (f"{share:.0%}" for share in shares)
    return (
        "One exposure cannot tell how well it will be known on another day: on real rigs that were "
        f"taught each smell once, {', '.join(others)} and {last} of later exposures were named "
        "rightly."
    )


def _feedback(data: Data) -> Iterator[str]:
    """Describe what was kept, proposed or taught."""
    if "rehearsal" in data:
        yield from _taught(data)
        return
    if "feedback" in data:
        yield "Noted: " + "; ".join(map(_judged, data["feedback"])) + "."
        for proposal in data["proposals"]:
            negative = "not " if proposal["kind"] == "negative" else ""
            yield (
                f"{proposal['seconds']:.0f} s of readings are proposed as "
                f"{negative}{proposal['label']}; nothing is learnt from them until they are "
                "accepted."
            )
        yield from data["why"]
    score = data.get("score")
    if score is not None and score["share_right"] is not None:
        yield f"Right so far: {score['right']} of {score['right'] + score['wrong']}."
    elif "feedback" not in data:
        yield DONE


def _judged(judgement: Data) -> str:
    truth = "" if judgement["label"] is None else f", it was {judgement['label']}"
    return f"{judgement['announced'] or 'no name'} was {judgement['verdict']}{truth}"


def _calibration(data: Data) -> Iterator[str]:
    if "kind" in data:
        what = "clean air" if data["label"] is None else data["label"]
        yield f"Kept {data['seconds']:.0f} s of {what}. Fit the calibration to apply it."
        return
    in_force = data.get("in_force")
    if in_force is not None:
        why = "" if in_force["why"] is None else f": {in_force['why']}"
        yield f"The calibration is {in_force['state']}{why}."
    else:
        yield DONE


def _model(data: Data) -> Iterator[str]:
    if "models" in data:
        yield "; ".join(f"{one['name']}: {one['active']}" for one in data["models"]) + "."
        return
    yield f"{data['name']} runs in version {data['active']}." if data.get("in_force") else DONE


def _recording(data: Data) -> Iterator[str]:
    for part in data.get("labelled", ()):
        seconds = (part["end_ms"] - part["start_ms"]) / 1000.0
        yield f"{seconds:.0f} s of {part['file']} are labelled {part['label']}."
    report = data["recording"]
    why = "" if report["why"] is None else f": {report['why']}"
    yield f"The recording is {report['state']}{why}."


def _reloaded(data: Data) -> Iterator[str]:
    changed = ", ".join(data["changed"])
    yield f"The configuration was read again; changed: {changed or 'nothing'}."


_SENTENCES: dict[str, Callable[[Data], Iterator[str]]] = {
    ENROLL: _smells,
    FEEDBACK: _feedback,
    CALIBRATE: _calibration,
    MODELS: _model,
    RECORD: _recording,
    RELOAD: _reloaded,
}
