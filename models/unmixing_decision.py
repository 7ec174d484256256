"""Models: which taught smells a mixture has, from the responses of an exposure as it goes on.

May import numpy and models. Pure: no clock, no files. It follows `models.unmixing` at the board's
own rate, from the onset on and on the plateau alike, and has what
`models.mixture_decision.MixtureDecision` has.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np

from models.substance_decision import N_TOP, Component
from models.unmixing import mean_response

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.substance_decision import ComponentGroup
    from models.unmixing import Composition, Unmixing

SMOOTH_S = 10.0
"""Seconds of responses that are averaged, against the noise of single readings."""

RISE_FACTOR = 2.0
"""A response that changed by d in `SMOOTH_S` may go on by as much as this times d: the rest of a
first-order rise of 20 s, which the sensors of the published recordings have."""

ANNOUNCE = 0.6
WITHDRAW = 0.5
"""Presence from which a component is announced, and below which it is withdrawn again: it is more
likely absent then."""

CONFIRM = 2
"""Successive estimates in which a component, or that nothing fits, must hold."""


class UnmixingDecision:
    """The components that are announced, and the groups that cannot be told apart.

    Parameters
    ----------
    unmixing: of the rig.

    Attributes
    ----------
    composition: the latest estimate, None before the first.
    """

    named: tuple[str, float] | None = None
    novelty: float | None = None
    label_set: tuple[str, ...] = ()
    descriptors: tuple[tuple[str, float], ...] = ()

    def __init__(self, unmixing: Unmixing) -> None:
        self._unmixing = unmixing
        self._recent: deque[tuple[float, NDArray[np.float64]]] = deque()
        self.composition: Composition | None = None
        self._held = np.zeros(len(unmixing.labels), dtype=np.int64)
        self._present = np.zeros(len(unmixing.labels), dtype=np.bool_)
        self._misfits = 0

    @property
    def unexplained(self) -> bool:
        """Whether something that was not taught is in it; nothing is announced then."""
        return self._misfits >= CONFIRM

    @property
    def components(self) -> tuple[Component, ...]:
        """The components announced, the largest first."""
        return () if self.unexplained else self._listed(self._present)

    @property
    def groups(self) -> tuple[ComponentGroup, ...]:
        """The groups that cannot be told apart, none of whose members is announced."""
        if self.composition is None or self.unexplained:
            return ()
        announced = {component.label for component in self.components}
        return tuple(
            group
            for group in self.composition.groups
            if group.presence >= ANNOUNCE and not announced & set(group.labels)
        )

    @property
    def candidates(self) -> tuple[Component, ...]:
        """Up to five components, the most probable first, announced or not."""
        if self.composition is None:
            return ()
        order = np.argsort(-self.composition.presence, kind="stable")[:N_TOP]
        chosen = np.zeros(len(self._unmixing.labels), dtype=np.bool_)
        chosen[order] = True
        return tuple(sorted(self._listed(chosen), key=lambda part: -part.presence))

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """Up to five (label, presence), the most probable first; empty before any estimate."""
        if self.composition is None:
            return ()
        order = np.argsort(-self.composition.presence, kind="stable")[:N_TOP]
        return tuple((self._unmixing.labels[k], float(self.composition.presence[k])) for k in order)

    @property
    def unrecognised(self) -> bool:
        """Whether nothing that was taught explains the response."""
        return self.unexplained

    @property
    def belief(self) -> float:
        """Largest presence of an announced component, 0 without one."""
        return max((component.presence for component in self.components), default=0.0)

    @property
    def announced(self) -> str | None:
        """The components' labels in one string, None without any."""
        return " + ".join(sorted(component.label for component in self.components)) or None

    def observe(self, response: NDArray[np.float64], t_s: float) -> None:
        """Take a reading's response above clean air, float64[channels], at a time of the stream."""
        while self._recent and self._recent[0][0] <= t_s - 2 * SMOOTH_S:
            self._recent.popleft()
        self._recent.append((t_s, response))

    def decide(self) -> None:
        """Estimate the composition anew and decide what is announced; nothing without readings."""
        if not self._recent:
            return
        response, uncertainty = self._averaged()
        if not len(self._unmixing.usable_channels(response)):
            return
        self.composition = self._unmixing.estimate(response, uncertainty)
        presence = self.composition.presence
        self._held = np.where(presence >= ANNOUNCE, self._held + 1, 0)
        self._present = (self._present & (presence >= WITHDRAW)) | (self._held >= CONFIRM)
        self._misfits = self._misfits + 1 if self.composition.unexplained else 0

    def clear(self) -> None:
        """Discard all evidence."""
        self._recent.clear()
        self.composition = None
        self.withdraw()

    def withdraw(self) -> None:
        """Withdraw what is announced, but keep the evidence."""
        self._held[:] = 0
        self._present[:] = False
        self._misfits = 0

    def _averaged(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean response of the last `SMOOTH_S`, and how far it may still go."""
        newest_s = self._recent[-1][0]
        rows = np.array([response for _, response in self._recent])
        late = np.array([t_s for t_s, _ in self._recent]) > newest_s - SMOOTH_S
        response = mean_response(rows[late])
        # Without earlier readings the exposure has only begun, from clean air.
        before = (
            np.nan_to_num(mean_response(rows[~late])) if not late.all() else np.zeros(rows.shape[1])
        )
        return response, np.nan_to_num(RISE_FACTOR * np.abs(response - before))

    def _listed(self, chosen: NDArray[np.bool_]) -> tuple[Component, ...]:
        if self.composition is None:
            return ()
        found = [
            Component(
                self._unmixing.labels[label],
                float(self.composition.proportion[label]),
                float(self.composition.presence[label]),
                float(self.composition.low[label]),
                float(self.composition.high[label]),
            )
            for label in np.flatnonzero(chosen)
        ]
        return tuple(sorted(found, key=lambda component: -component.proportion))
