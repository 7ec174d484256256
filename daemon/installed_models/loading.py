"""Daemon: loading the configured models, and making the nose that runs them."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

from models.bundle import load_bundle
from models.decision_spec import LabelRule
from models.nose import Nose, NoseSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.config.settings import Config, DecisionConfig
    from daemon.installed_models.store import ModelStore
    from models.bundle import Bundle


def load_models(
    names: Iterable[str], decision: DecisionConfig, store: ModelStore | None = None
) -> list[Bundle]:
    """Load bundles, with the rig's own decision constants where it has any.

    Parameters
    ----------
    names : iterable of str
        Names or folders, as a configuration has them.
    decision : DecisionConfig
        The rig owner's.
    store : ModelStore, optional
        What is installed on the rig, in place of what is shipped.

    Raises
    ------
    BundleError
        The first bundle that cannot be used, and why.
    """
    load = load_bundle if store is None else store.load
    return [with_decision(load(name), decision) for name in names]


def with_decision(bundle: Bundle, wanted: DecisionConfig) -> Bundle:
    """Return a bundle that decides as the rig's owner wants; the one given stays as it is.

    Raises
    ------
    ManifestError
        The owner's numbers contradict those of the manifest.
    """
    spec = bundle.manifest.decision
    if wanted.error_rate is not None:
        spec = spec.at_error_rate(wanted.error_rate)
    given = wanted.overrides()
    if spec.novelty is None:
        given.pop("unknown_above", None)  # meant for another model of the same rig
    rules = {label: LabelRule(rule.announce, rule.confirm) for label, rule in wanted.labels.items()}
    spec = replace(spec, **given, labels={**spec.labels, **rules})  # type: ignore[arg-type]
    own = copy(bundle)
    own.manifest = replace(bundle.manifest, decision=spec)
    return own


def nose_settings(config: Config) -> NoseSettings:
    """Return the nose's settings from the configuration."""
    return NoseSettings(live_stride_s=config.live_stride_s, exposure=config.exposure)


def live_nose(config: Config, bundles: Sequence[Bundle]) -> Nose:
    """Return the nose of a live board."""
    return Nose(bundles, nose_settings(config), rate_hz=config.source.rate_hz)
