"""Daemon: exposures and negatives that feedback proposes to the library of taught smells.

A proposal has no effect on what the rig announces: it waits in the state folder until the owner
accepts it, which teaches it, or dismisses it.

    feedback/proposals/ID.csv     the readings, with those before the exposure
    feedback/proposals/ID.json    what they are proposed as
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from daemon.request_fields import RequestError
from hardware.files import read_regular, remove, write_atomically
from hardware.safe_json import read_state, write_state

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.system.background import Data

FOLDER = "proposals"

MOST = 64
MOST_BYTES = 32_000_000
"""Number and size of all proposals at most; the oldest are removed. Two minutes at 1 Hz: 15 KB."""

_ID = re.compile(r"[0-9a-f]{8}-\d{1,12}")
_MOST_ABOUT_BYTES = 4096


class ProposalKind(StrEnum):
    """What readings are proposed as."""

    EXPOSURE = "exposure"
    NEGATIVE = "negative"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Readings that the owner said something about.

    Attributes
    ----------
    id: of the announcement: the beginning of its boot_id, and its seq.
    label: the true name of an exposure; the name that a negative must not be given.
    session: the UTC day.
    start_ms: time in the readings from which on the smell may be there.
    seconds: from there to the end.
    given_ms: when the owner said so, milliseconds since 1970.
    """

    id: str
    kind: str
    label: str
    session: str
    start_ms: int
    seconds: float
    given_ms: int

    def data(self) -> Data:
        """Return it as a response states it."""
        names = ("id", "kind", "label", "session", "seconds")
        return {name: getattr(self, name) for name in names}


class Proposals:
    """The proposals of a rig.

    Parameters
    ----------
    folder: of all feedback.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER

    def add(self, proposal: Proposal, readings: bytes) -> None:
        """Keep a proposal in place of an earlier one of the same announcement.

        Raises
        ------
        OSError: the disk refuses.
        """
        write_atomically(self.readings_path(proposal.id), readings)
        write_atomically(self._about(proposal.id), write_state(asdict(proposal)))
        self._remove_oldest()

    def list(self) -> list[Proposal]:
        """Return the proposals, the oldest first; damaged ones are left out."""
        found = (self._read(path) for path in self._folder.glob("*.json"))
        return sorted(filter(None, found), key=lambda item: (item.given_ms, item.id))

    def get(self, proposal_id: str) -> Proposal:
        """Return one proposal.

        Raises
        ------
        RequestError: there is none with this id.
        """
        if _ID.fullmatch(proposal_id) and (found := self._read(self._about(proposal_id))):
            return found
        names = ", ".join(item.id for item in self.list()) or "none"
        raise RequestError(f"There is no proposal {proposal_id!r}. Proposals: {names}.")

    def remove(self, proposal_id: str) -> None:
        """Remove a proposal, if it is there."""
        if _ID.fullmatch(proposal_id):
            remove(self._about(proposal_id))
            remove(self.readings_path(proposal_id))

    def readings_path(self, proposal_id: str) -> Path:
        """Return the file of a proposal's readings."""
        return self._folder / f"{proposal_id}.csv"

    def _about(self, proposal_id: str) -> Path:
        return self._folder / f"{proposal_id}.json"

    def _read(self, path: Path) -> Proposal | None:
        try:
            proposal = Proposal(**read_state(read_regular(path, _MOST_ABOUT_BYTES)))
        except (OSError, ValueError, TypeError):
            return None
        fits = _ID.fullmatch(str(proposal.id)) and path.stem == proposal.id and _fits(proposal)
        return proposal if fits else None

    def _remove_oldest(self) -> None:
        kept = self.list()
        sizes = [self._bytes_of(item) for item in kept]
        while len(kept) > 1 and (len(kept) > MOST or sum(sizes) > MOST_BYTES):
            self.remove(kept.pop(0).id)
            sizes.pop(0)

    def _bytes_of(self, proposal: Proposal) -> int:
        try:
            return self.readings_path(proposal.id).lstat().st_size
        except OSError:
            return 0


def _fits(proposal: Proposal) -> bool:
    kinds: dict[str, Any] = {
        "kind": str,
        "label": str,
        "session": str,
        "start_ms": int,
        "seconds": (int, float),
        "given_ms": int,
    }
    return proposal.kind in tuple(ProposalKind) and all(
        isinstance(getattr(proposal, name), kind) for name, kind in kinds.items()
    )
