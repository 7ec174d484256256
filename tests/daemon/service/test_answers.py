"""Answers in words: what was learnt, what was kept, why something was refused."""

from __future__ import annotations

from typing import Any

import pytest

from calibration.smell_set import NEGATIVES
from daemon.service.answers import DONE, WORDS_LIMIT, describe_answer

TAUGHT: dict[str, Any] = {
    "label": "soap",
    "negative": False,
    "shadow": True,
    "clean_air": "ambient",
    "rehearsal": {
        "held_out": 0.8,
        "held_out_by": "session",
        "confused_with": [{"label": "tea", "share": 0.2}],
        "taken_from": [],
    },
    "advice": {"label": "tea", "sessions": 1, "gain": 0.01},
}


def words(command: str, data: dict[str, Any] | None, error: str | None = None) -> str:
    status = "ok" if error is None else "error"
    return describe_answer(command, {"status": status, "data": data, "error": error})


def test_a_taught_smell_is_described_with_its_confusions_and_the_next_day() -> None:
    assert words("enroll", TAUGHT) == (
        "Learnt soap: 80% of a session that was left out is recognised. The rest is taken for tea "
        "(20%). One more day of tea would help most. It is in shadow: promote it to announce it."
    )


def test_one_exposure_is_said_not_to_tell_what_another_day_will_bring() -> None:
    rehearsal = {
        **TAUGHT["rehearsal"],
        "held_out": None,
        "held_out_by": "nothing",
        "confused_with": [],
        "rigs_from_one": [0.9, 0.47, 0.0],
    }
    assert words("enroll", {**TAUGHT, "rehearsal": rehearsal}).startswith(
        "Learnt soap. One exposure cannot tell how well it will be known on another day: on real "
        "rigs that were taught each smell once, 90%, 47% and 0% of later exposures were named "
        "rightly. One more day"
    )


def test_a_negative_is_described_with_what_it_costs() -> None:
    rehearsal = {
        "before": [{"label": "tea", "share": 1.0}],
        "held_out": None,
        "taken_from": [{"label": "coffee", "share": 0.25}],
    }
    negative = {**TAUGHT, "label": NEGATIVES, "negative": True, "rehearsal": rehearsal}
    assert words("enroll", {**negative, "shadow": False}) == (
        "Learnt as none of the taught smells. Without it, this was called tea (100%). Because of "
        "it, exposures lose their right name: coffee (25%)."
    )
    assert words("enroll", negative).endswith("promote it to use it.")


def test_missing_clean_air_is_said_and_a_promoted_smell_is_announced() -> None:
    text = words("enroll", {**TAUGHT, "clean_air": None, "shadow": False, "advice": None})
    assert "Begin the next exposure in clean air" in text
    assert text.endswith("The rig announces it from now on.")


def test_the_library_names_what_is_announced_and_what_is_in_shadow() -> None:
    smells = [
        {"label": "tea", "negative": False, "shadow": False},
        {"label": "soap", "negative": False, "shadow": True},
        {"label": NEGATIVES, "negative": True, "shadow": False},
    ]
    assert words("enroll", {"smells": smells}) == (
        "Taught and announced: tea. In shadow, not announced: soap."
    )


def test_a_refusal_is_its_reason_and_progress_its_share() -> None:
    assert words("enroll", None, "There is no smell.") == "There is no smell."
    progress = {"status": "working", "data": {"doing": "smelling", "share": 0.5}, "error": None}
    assert describe_answer("enroll", progress) == "smelling: 50%"


@pytest.mark.parametrize(
    ("command", "data", "expected"),
    [
        (
            "calibrate",
            {"kind": "baseline", "label": None, "seconds": 60.0},
            "Kept 60 s of clean air. Fit the calibration to apply it.",
        ),
        (
            "models",
            {"name": "substances-50", "active": "1.2", "in_force": True},
            "substances-50 runs in version 1.2.",
        ),
        ("record", {"recording": {"state": "off", "why": None}}, "The recording is off."),
        (
            "reload",
            {"changed": ["models"], "models": []},
            "The configuration was read again; changed: models.",
        ),
        ("status", {}, DONE),
    ],
)
def test_other_answers_are_one_sentence(command: str, data: dict[str, Any], expected: str) -> None:
    assert words(command, data) == expected


def test_a_long_text_is_cut() -> None:
    assert len(words("enroll", None, "x" * 5000)) == WORDS_LIMIT


def test_feedback_is_described_with_what_follows_from_it() -> None:
    judged = {"announced": "tea", "verdict": "wrong", "label": "soap"}
    proposal = {"kind": "negative", "label": "tea", "seconds": 61.0}
    data = {
        "feedback": [judged],
        "proposals": [proposal],
        "why": [],
        "score": {"right": 3, "wrong": 1, "share_right": 0.75},
    }
    assert words("feedback", data) == (
        "Noted: tea was wrong, it was soap. 61 s of readings are proposed as not tea; nothing is "
        "learnt from them until they are accepted. Right so far: 3 of 4."
    )
    assert words("feedback", {"proposals": []}) == DONE
    assert words("feedback", TAUGHT) == words("enroll", TAUGHT)


def test_an_export_and_listed_exposures_are_described() -> None:
    assert words("enroll", {"file": "exports/smells.zip", "exported": 2, "bytes": 9}) == DONE
    assert words("enroll", {"label": "tea", "shadow": True, "sessions": []}) == DONE
