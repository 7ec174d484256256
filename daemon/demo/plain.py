"""Demo: the plain view: one line for every change, for pipes and for screen readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.demo.state import clock, odour_text, score

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from daemon.demo.state import NamingResult, RigState, View


def plain_view(stream: TextIO) -> View:
    """Return a view that prints to `stream` what has changed since its last call."""
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
                    line = f"{clock(elapsed_s):>5}  {rig.setup.rig_id:<11} {what:<10} {text}"
                    print(line, file=stream, flush=True)

    return update


def _announcement(rig: RigState) -> str:
    text = rig.announcement
    newest = next(reversed(rig.results), None)
    # An odour that has just begun has no result yet: the names are those of the previous one.
    if not rig.names or newest is None or newest.finished:
        return text
    return f"{text} ({newest.verdict}, {newest.after_s:.0f} s after its onset)"


def summary(rigs: Sequence[RigState]) -> str:
    """Return a table of the odours played and the names given, then the score of every rig."""
    rows = [("", "played", "said")] + [
        (result.verdict, odour_text(result.odour), _named(result))
        for rig in rigs
        for result in rig.results
    ]
    lines = [f"{verdict:<14} {played:<18} {named}" for verdict, played, named in rows]
    lines += [f"{rig.setup.rig_id}: {score(rig.results)}." for rig in rigs]
    return "\n".join(lines)


def _named(result: NamingResult) -> str:
    text = f"{odour_text(result.names)}, after {result.after_s:.0f} s" if result.names else "-"
    return text if result.finished else f"{text}; still in the air"
