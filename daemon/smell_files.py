"""Daemon: files of taught smells, as requests and commands import them.

Joins the exchange of smells (`calibration.smell_exchange`) and the data of answers. Knows no
broker, no thread and no service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from calibration.smell_exchange import (
    OTHER_BOARDS,
    ImportChoices,
    check_import,
    import_smells,
)
from hardware.counting import counted

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from calibration.smell_exchange import ImportPlan
    from calibration.smell_origin import RigIdentity
    from calibration.smell_store import SmellStore
    from daemon.system.background import Data


def import_file(
    store: SmellStore, path: Path, identity: RigIdentity, *, check: bool, **choices: Any
) -> Data:
    """Import a file of smells, or with `check` only find out what that would do.

    Parameters
    ----------
    store: the rig's library.
    path: of the file.
    identity: what the rig knows of itself.
    check: change nothing.
    choices: of `ImportChoices`.
    """
    do = check_import if check else import_smells
    return plan_data(do(store, path, identity, ImportChoices(**choices)))


def plan_data(plan: ImportPlan) -> Data:
    """Return what an import does, or would do, as the data of an answer."""
    origin = plan.origin
    return {
        "origin": {
            "rig": origin.rig,
            "board": origin.board,
            "calibration": origin.calibration or None,
            "rate_hz": origin.rate_hz or None,
            "exported": origin.date or None,
        },
        "same_board": plan.comparison.same,
        "why": plan.comparison.why,
        "missing": list(plan.comparison.missing),
        "planned": [
            {
                "label": smell.label,
                "becomes": smell.becomes,
                "exposures": len(smell.new),
                "known": smell.known,
                "left_out": smell.left_out,
                "taught_here": smell.taught_here,
            }
            for smell in plan.smells
        ],
        "problem": plan.problem or None,
    }


def plan_lines(data: Data, *, done: bool) -> Iterator[str]:
    """Describe the data of `plan_data` in lines, of an import that was done or would be."""
    origin = data["origin"]
    came = f"from rig {origin['rig']}" if origin["rig"] else "from a rig that it does not name"
    if origin["exported"]:
        came += f", exported {origin['exported']}"
    yield f"The file is {came}. Its smells {_fit(data)}."
    for smell in data["planned"]:
        name = smell["label"]
        if smell["becomes"] != name:
            name += f" as {smell['becomes']}"
        line = f"  {name:<24} {counted(smell['exposures'], 'exposure')}"
        line += " taken" if done else " to take"
        if smell["known"]:
            line += f", {smell['known']} taught here already"
        if smell["left_out"]:
            line += f", {smell['left_out']} more than a smell can have"
        yield line
    if done and not data["same_board"]:
        yield f"{OTHER_BOARDS}. They are in shadow: promote one only after a test."
    elif done:
        yield "New smells are in shadow. To announce one: scentd enroll --promote LABEL"
    if data["problem"]:
        yield f"It would be refused: {data['problem']}"


def _fit(data: Data) -> str:
    return f"{'fit' if data['same_board'] else 'may not fit'}: {data['why']}"
