"""Daemon: loads the configured models, and makes the nose that runs them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from daemon.installed_models.store import ModelStore
from models.decision_spec import LabelRule
from models.nose import Nose, NoseSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from daemon.config.settings import Config, DecisionConfig
    from models.bundle import Bundle


def load_models(
    config: Config, names: Iterable[str] | None = None, *, fall_back: bool = True
) -> list[Bundle]:
    """Load the configured models, or those of `names`, with the configured decision settings.

    Of an installed model that cannot be used an earlier version, unless `fall_back` is false.
    """
    store = ModelStore(config.state_dir)
    names = config.models if names is None else names
    bundles = [store.load(name, fall_back=fall_back) for name in names]
    return [with_decision(bundle, config.decision) for bundle in bundles]


def with_decision(bundle: Bundle, wanted: DecisionConfig) -> Bundle:
    """Return a copy of a bundle with the configured decision settings.

    Raises
    ------
    ManifestError: if they contradict those of the manifest.
    """
    spec = bundle.manifest.decision
    if wanted.error_rate is not None:
        spec = spec.at_error_rate(wanted.error_rate)
    given = wanted.overrides()
    if spec.novelty is None:
        given.pop("unknown_above", None)  # applies to other models of the rig
    rules = {label: LabelRule(rule.announce, rule.confirm) for label, rule in wanted.labels.items()}
    spec = replace(spec, **given, labels={**spec.labels, **rules})  # type: ignore[arg-type]
    return bundle.with_decision(spec)


def nose_settings(config: Config) -> NoseSettings:
    """Return the nose's settings from the configuration."""
    return NoseSettings(live_stride_s=config.live_stride_s, exposure=config.exposure)


def live_nose(config: Config, bundles: Sequence[Bundle]) -> Nose:
    """Return the nose of a live board."""
    return Nose(bundles, nose_settings(config), rate_hz=config.source.rate_hz)
