"""Models: which components a mixture has, from the outputs over overlapping windows.

May import numpy and models.substance_decision. Pure: no clock, no files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from models.substance_decision import N_TOP, Component, ComponentGroup, FadingMean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.bundle import Outputs
    from models.decision_spec import DecisionSpec
    from models.substance_decision import EvidenceShare


def group_presence(presence: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the probability float64[...] that at least one of some components is there.

    Of their presences float[..., components], taken for independent. On the published mixtures this
    told strong components as well as their joint probability did (AUROC .985, both).
    """
    return np.asarray(1.0 - np.prod(1.0 - presence.astype(np.float64), axis=-1))


class MixtureDecision:
    """Smoothed proportions and presences, and which components count as present.

    Parameters
    ----------
    labels: in the order of the outputs.
    spec: the manifest's constants, with one presence threshold per label.

    Attributes
    ----------
    foreign: the board is unlike that of the training: no components are announced.
    """

    # Only a decision between single substances has these.
    named: tuple[str, float] | None = None
    unrecognised = nameless = False
    unexplained = False
    novelty: float | None = None
    label_set: tuple[str, ...] = ()
    short_list: tuple[str, ...] = ()
    descriptors: tuple[tuple[str, float], ...] = ()

    def __init__(self, labels: tuple[str, ...], spec: DecisionSpec) -> None:
        self._labels = labels
        self._spec = spec
        self._mean = FadingMean(2 * len(labels), spec)
        self._thresholds = np.array(spec.presence_thresholds)
        self._groups = [[labels.index(label) for label in group] for group in spec.groups]
        self._group_present = np.zeros(len(spec.groups), dtype=bool)
        self._present = np.zeros(len(labels), dtype=bool)
        self._proportions: NDArray[np.float64] = np.zeros(len(labels))
        self._presences: NDArray[np.float64] = np.zeros(len(labels))
        self._windows = 0
        self.foreign = False

    @property
    def components(self) -> tuple[Component, ...]:
        """The components present, the largest first."""
        return self._listed(np.flatnonzero(self._present))

    @property
    def groups(self) -> tuple[ComponentGroup, ...]:
        """The groups that are announced only together, with their presence."""
        if not self._windows:
            return ()
        return tuple(
            ComponentGroup(labels, group_presence(self._presences[columns]).item())
            for labels, columns in zip(self._spec.groups, self._groups, strict=True)
        )

    @property
    def candidates(self) -> tuple[Component, ...]:
        """Up to five components, the most probable first, announced or not."""
        if not self._windows:
            return ()
        order = np.argsort(-self._presences, kind="stable")[:N_TOP]
        return tuple(
            Component(self._labels[k], float(self._proportions[k]), float(self._presences[k]))
            for k in order
        )

    @property
    def top(self) -> tuple[tuple[str, float], ...]:
        """Up to five (label, proportion), the largest first; empty before any window."""
        if not self._windows:
            return ()
        best = self._listed(np.arange(len(self._labels)))[:N_TOP]
        return tuple((component.label, component.proportion) for component in best)

    def add(self, outputs: Outputs, share: EvidenceShare) -> None:
        """Add the model's proportions and presences of one window."""
        both = np.concatenate([outputs.proportions[0], outputs.presence[0]]).astype(np.float64)
        mean = self._mean.add(both, share)
        self._proportions, self._presences = np.split(mean, 2)
        self._windows += 1
        keep = self._present & (self._presences >= self._thresholds * self._spec.presence_release)
        present = keep | (self._presences >= self._thresholds)
        present &= self._proportions >= self._spec.min_proportion
        for number, group in enumerate(self.groups):
            release = self._spec.presence_release if self._group_present[number] else 1.0
            threshold = self._spec.group_presence * release
            self._group_present[number] = group.presence >= threshold and not self.foreign
        if self._groups:
            present[:] = False
        needed = self._spec.withdraw if self._present.any() else self._spec.announce
        whole = float(self._proportions[present].sum()) >= needed
        self._present = present if whole and not self.foreign else np.zeros_like(present)

    def clear(self) -> None:
        """Discard all evidence."""
        self._mean.clear()
        self._windows = 0
        self.withdraw()

    def withdraw(self) -> None:
        """Withdraw the components, but keep the evidence."""
        self._present[:] = False
        self._group_present[:] = False

    @property
    def belief(self) -> float:
        """Largest presence of an announced component or group, 0 without one."""
        groups = zip(self.groups, self._group_present.tolist(), strict=False)
        beliefs = [component.presence for component in self.components]
        return max(beliefs + [group.presence for group, here in groups if here], default=0.0)

    @property
    def announced(self) -> str | None:
        """The labels of components and groups in one string, None without any."""
        groups = [
            " or ".join(labels)
            for labels, here in zip(self._spec.groups, self._group_present, strict=True)
            if here
        ]
        names = [*sorted(component.label for component in self.components), *groups]
        return " + ".join(names) or None

    def _listed(self, indices: NDArray[np.intp]) -> tuple[Component, ...]:
        found = [
            Component(
                self._labels[index],
                float(self._proportions[index]),
                float(self._presences[index]),
                *self._interval(float(self._proportions[index])),
            )
            for index in indices
        ]
        return tuple(sorted(found, key=lambda component: -component.proportion))

    def _interval(self, proportion: float) -> tuple[float | None, float | None]:
        margin = self._spec.proportion_margin
        if margin is None:
            return None, None
        return max(0.0, proportion - margin), min(1.0, proportion + margin)
