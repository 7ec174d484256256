"""Demo: the plain view: one line whenever something changes, for pipes and for people who read.

Pure but for the stream it is given. Says the same as the screen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.demo.wording import clock, in_the_air, judged, named, opinion, score_line

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from daemon.demo.state import NamingResult, RigState


class PlainView:
    """Prints what changed since it last looked.

    Parameters
    ----------
    stream: where lines go.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._played: dict[str, int] = {}
        self._told: dict[str, str] = {}

    def look(self, stories: Sequence[RigState], elapsed_s: float) -> None:
        """Print a line for every rig whose air or opinion has changed."""
        for story in stories:
            if not story.readings:
                continue
            rig_id, act = story.programme.rig.rig_id, story.act
            if self._played.get(rig_id) != act.number:
                self._played[rig_id] = act.number
                self._line(elapsed_s, rig_id, "in the air", in_the_air(act.odour))
            told = self._opinion(story)
            if self._told.get(rig_id) != told:
                self._told[rig_id] = told
                self._line(elapsed_s, rig_id, "says", told)

    def _opinion(self, story: RigState) -> str:
        told = opinion(story)
        newest = next(reversed(story.verdicts), None)
        # An odour that has just come has no name yet: what is said still means the last one.
        if not story.said or newest is None or newest.over:
            return told
        return f"{told} ({judged(newest)}, {newest.after_s:.0f} s after its onset)"

    def _line(self, elapsed_s: float, rig_id: str, what: str, text: str) -> None:
        self._stream.write(f"{clock(elapsed_s):>5}  {rig_id:<11} {what:<10} {text}\n")
        self._stream.flush()


def summary(stories: Sequence[RigState]) -> str:
    """Return what was played against what was said, rig by rig, with the score."""
    lines = [_row("", "played", "said")]
    for story in stories:
        lines += [
            _row(judged(verdict), named(verdict.played), _said(verdict))
            for verdict in story.verdicts
        ]
    lines += [f"{story.programme.rig.rig_id}: {score_line(story.verdicts)}." for story in stories]
    return "\n".join(lines)


def _row(verdict: str, played: str, said: str) -> str:
    return f"{verdict:<14} {played:<18} {said}"


def _said(verdict: NamingResult) -> str:
    told = f"{named(verdict.said)}, after {verdict.after_s:.0f} s" if verdict.said else "-"
    return told if verdict.over else f"{told}; still in the air"
