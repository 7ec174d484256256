"""Demo: the plain view: one line for every change, for pipes and for screen readers."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING

from daemon.demo.state import clock, exceptions, odour_text, score

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from daemon.demo.state import NamingResult, RigState, View

_WHAT_WIDTH = 12
_LEAST_WIDTH = 40


def plain_view(stream: TextIO) -> View:
    """Return a view that prints to `stream` what has changed since its last call.

    On a terminal, lines are broken between words.
    """
    printed: dict[tuple[str, str], object] = {}

    def update(rigs: Sequence[RigState], elapsed_s: float) -> None:
        for rig in rigs:
            if not rig.readings:
                continue
            episode, announced = rig.episode, _announcement(rig)
            for what, text, key in (
                ("in the air", odour_text(episode.odour), episode.number),
                ("says", announced, announced),
            ):
                if printed.get((rig.setup.rig_id, what)) != key:
                    printed[rig.setup.rig_id, what] = key
                    head = f"{clock(elapsed_s):>5}  {rig.setup.rig_id:<11} {what:<{_WHAT_WIDTH}}"
                    print(_broken(stream, head, text), file=stream, flush=True)

    return update


def _broken(stream: TextIO, head: str, text: str) -> str:
    """Return head and text, on a terminal in as many lines as needed."""
    if not stream.isatty():
        return head + text
    width = max(shutil.get_terminal_size().columns, _LEAST_WIDTH)
    return textwrap.fill(
        text, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False
    )


def _announcement(rig: RigState) -> str:
    text = rig.announcement
    result = rig.present_result
    if result is None or not (rig.names or result.unrecognised):
        return text
    return f"{text} ({result.verdict}, {result.after_s:.0f} s after its onset)"


def summary(rigs: Sequence[RigState]) -> str:
    """Return a table of the odours played and the names given, then the score of every rig."""
    rows = [("", "played", "said")] + [
        (result.verdict, _played(result), _said(result)) for rig in rigs for result in rig.results
    ]
    width = max(len(played) for _, played, _ in rows)
    lines = [f"{verdict:<14} {played:<{width}}  {said}" for verdict, played, said in rows]
    besides = [(rig.setup.rig_id, exceptions(rig.results)) for rig in rigs]
    lines += [f"{rig_id}, besides: {more}" for rig_id, more in besides if more]
    lines += [f"{rig.setup.rig_id}: {score(rig.results)}" for rig in rigs]
    return "\n".join(lines)


def _played(result: NamingResult) -> str:
    return odour_text(result.odour) + ("" if result.taught else " (never taught)")


def _said(result: NamingResult) -> str:
    if not result.answered:
        return "-"
    answer = odour_text(result.names) if result.names else "unknown smell"
    text = f"{answer}, after {result.after_s:.0f} s"
    return text if result.finished else f"{text}; still in the air"
