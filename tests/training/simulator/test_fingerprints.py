"""The fit of the simulator's tables recovers what the simulator played."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hardware.channels import GAS_INDICES
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import RELAXATION_TIMES_S, load_board
from models.bundle import load_bundle
from training.simulator.fingerprint_check import run_live_episodes
from training.simulator.fingerprint_tables import fit_tables, write_tables
from training.simulator.fingerprints import (
    MIXTURE_KIND,
    SUBSTANCE_KIND,
    band_covariance,
    fit_fingerprint,
)


def _play(scenario: str, seed: int, board: str) -> np.ndarray:
    signal = SyntheticSignal(scenario, seed=seed, board=board)
    return np.array(list(islice(iter(signal), 600)), dtype=float)[:, list(GAS_INDICES)]


def test_the_fit_recovers_the_level_that_was_played() -> None:
    board = load_board()
    fitted = fit_fingerprint(_play("nutmeg:600", 3, "substances"), SUBSTANCE_KIND)
    levels = [one.response + board.clean_air for one in board.fingerprints["nutmeg"]]
    nearest = min(np.abs(level - fitted.level)[:4].max() for level in levels)
    assert nearest < 0.3


def test_the_fit_recovers_a_known_transient() -> None:
    t_s = np.arange(600.0)
    level = -1 + 1.5 * (1 - np.exp(-t_s / RELAXATION_TIMES_S[1]))
    values = np.full((600, 8), np.nan)
    values[:, 0] = 1023 / (1 + np.exp(-level))
    fitted = fit_fingerprint(values, SUBSTANCE_KIND)
    assert fitted.level[0] == pytest.approx(0.5, abs=0.05)
    assert fitted.rise_s[0] == pytest.approx(20, abs=4), "63 % of the first 40 s of a 30 s rise"
    assert np.abs(fitted.residual[:, 0]).max() < 0.15, "ridge leaves a little of a steep rise"
    assert np.isnan(fitted.level[1:]).all(), "what was not measured has no level"


def test_the_fit_recovers_the_fluctuations_that_were_played() -> None:
    fingerprints = [
        fit_fingerprint(_play("broccoli:600", seed, "substances"), SUBSTANCE_KIND)
        for seed in range(3)
    ]
    fitted = band_covariance(fingerprints, SUBSTANCE_KIND)
    played = load_board().loadings["broccoli"]
    co = 3
    fitted_std = np.sqrt(np.sum(fitted[:, co, co]))
    played_std = np.sqrt(np.sum(played[:, co] ** 2))
    assert fitted_std == pytest.approx(played_std, rel=0.5)


def test_a_dead_channel_and_a_short_gap_do_not_prevent_a_fit() -> None:
    values = _play("almond:600", 1, "substances")
    values[:, 7] = np.nan
    values[100:110, 0] = np.nan
    fitted = fit_fingerprint(values, SUBSTANCE_KIND)
    assert np.isnan(fitted.level[7])
    assert np.isfinite(fitted.level[:7]).all()


def test_the_mixture_kind_reads_four_channels_at_ten_hertz() -> None:
    fitted = fit_fingerprint(_play("orange:60", 1, "mixtures")[:, :4], MIXTURE_KIND)
    assert fitted.level.shape == (4,)
    assert np.isfinite(fitted.level).all()


def test_the_check_plays_an_odour_to_a_shipped_model() -> None:
    bundle = load_bundle("mixtures-12", precision="int8")
    result = run_live_episodes(bundle, "almond", 1)
    assert len(result.answers) == 1
    assert result.right + result.silent <= 1


@pytest.mark.data
def test_the_shipped_tables_are_those_that_the_command_fits(tmp_path: Path, smellnet: Path) -> None:
    write_tables(fit_tables(smellnet), tmp_path)
    fitted, shipped = load_board("substances", tmp_path), load_board("substances")
    np.testing.assert_allclose(fitted.clean_air, shipped.clean_air, rtol=1e-3)
    for substance, fingerprints in shipped.fingerprints.items():
        for one, other in zip(fingerprints, fitted.fingerprints[substance], strict=True):
            np.testing.assert_allclose(one.response, other.response, rtol=1e-2, atol=1e-3)
