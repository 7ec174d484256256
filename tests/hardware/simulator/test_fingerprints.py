"""Fitting the tables: what went into a recording comes out of the fit."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from hardware.simulator.scenario import AIR
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import (
    GAS_SENSORS,
    RELAXATION_TIMES_S,
    TableError,
    load_board,
    load_playable,
)
from training.simulator.fingerprints import (
    MIXTURE_KIND,
    SUBSTANCE_KIND,
    fit_fingerprint,
    fit_loadings,
    fit_tables,
    write_tables,
)


def _play(scenario: str, seed: int, board: str) -> np.ndarray:
    signal = SyntheticSignal(scenario, seed=seed, board=board)
    return np.array(list(islice(iter(signal), 600)), dtype=float)[:, list(GAS_SENSORS)]


def test_a_fit_gives_back_the_level_of_what_was_played() -> None:
    board = load_board()
    fitted = fit_fingerprint(_play("nutmeg:600", 3, "substances"), SUBSTANCE_KIND)
    levels = [one.response + board.clean_air for one in board.fingerprints["nutmeg"]]
    nearest = min(np.abs(level - fitted.level)[:4].max() for level in levels)
    assert nearest < 0.3


def test_a_known_transient_is_found_again() -> None:
    t_s = np.arange(600.0)
    level = -1 + 1.5 * (1 - np.exp(-t_s / RELAXATION_TIMES_S[1]))
    values = np.full((600, 8), np.nan)
    values[:, 0] = 1023 / (1 + np.exp(-level))
    fitted = fit_fingerprint(values, SUBSTANCE_KIND)
    assert fitted.level[0] == pytest.approx(0.5, abs=0.05)
    assert fitted.rise_s[0] == pytest.approx(20, abs=4), "63 % of the first 40 s of a 30 s rise"
    assert np.abs(fitted.residual[:, 0]).max() < 0.15, "ridge leaves a little of a steep rise"
    assert np.isnan(fitted.level[1:]).all(), "what was not measured has no level"


def test_the_trembling_of_what_was_played_is_found_again() -> None:
    takes = [
        fit_fingerprint(_play("broccoli:600", seed, "substances"), SUBSTANCE_KIND)
        for seed in range(3)
    ]
    fitted = fit_loadings(takes, SUBSTANCE_KIND)
    played = load_board().loadings["broccoli"]
    co = 3
    fitted_std = np.sqrt(np.sum(fitted[:, co] ** 2))
    played_std = np.sqrt(np.sum(played[:, co] ** 2))
    assert fitted_std == pytest.approx(played_std, rel=0.5)


def test_a_hung_part_and_a_short_hole_are_no_obstacle() -> None:
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


@pytest.mark.parametrize("name", ["substances", "mixtures"])
def test_the_shipped_tables_are_whole(name: str) -> None:
    board = load_board(name)
    assert set(board.fingerprints) | {AIR} == set(board.loadings)
    assert (board.recovery_s > 0).all()
    assert (board.exponent > 0).all()
    for fingerprints in board.fingerprints.values():
        assert all((one.rise_s > 0).all() for one in fingerprints)


@pytest.mark.parametrize("name", ["substances", "mixtures"])
def test_every_odour_of_the_shipped_cast_can_be_played(name: str) -> None:
    for member in load_playable(name, least_right=0.0):
        signal = SyntheticSignal(f"{member.odour}:1", board=name)
        assert len(list(signal)) == round(signal.rate_hz)
        assert member.right <= member.trials


def test_the_substance_cast_holds_odours_that_are_truly_recognised() -> None:
    cast = load_playable()
    assert len(cast) >= 10
    assert all(member.right_after_s is not None for member in cast)


def test_missing_tables_are_answered_with_the_command_that_makes_them(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="scent-train fingerprints"):
        load_board("substances", tmp_path)


@pytest.mark.data
def test_the_shipped_tables_are_what_the_command_fits(tmp_path: Path) -> None:
    data = os.environ.get("SCENTD_DATA")
    if not data:
        pytest.skip("SCENTD_DATA does not name the folder of real recordings")
    folder = next((p for p in (Path(data), Path(data) / "smellnet") if (p / "base").is_dir()), None)
    if folder is None:
        pytest.skip(f"{data} holds no base/ folder of recordings")
    write_tables(fit_tables(folder), tmp_path)
    fitted, shipped = load_board("substances", tmp_path), load_board("substances")
    np.testing.assert_allclose(fitted.clean_air, shipped.clean_air, rtol=1e-3)
    for substance, fingerprints in shipped.fingerprints.items():
        for one, other in zip(fingerprints, fitted.fingerprints[substance], strict=True):
            np.testing.assert_allclose(one.response, other.response, rtol=1e-2, atol=1e-3)
