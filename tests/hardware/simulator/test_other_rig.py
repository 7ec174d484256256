"""Other rigs: the readings of one board as another would have sent them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from hardware.channels import GAS_INDICES, N_GAS, UINT32_INFINITY, channel_index
from hardware.errors import UsageError
from hardware.simulator.other_rig import (
    FIXED_RIG,
    OtherPart,
    OtherRig,
    OtherRigError,
    OtherRigSignal,
    read_rig,
    write_rig,
)
from hardware.simulator.signals import SyntheticSignal
from hardware.simulator.tables import load_board
from models.bundle import load_bundle
from training.data.dataset import load_substances, substance_folds
from training.evaluation.network_outputs import run_network, score_bundle

if TYPE_CHECKING:
    from numpy.typing import NDArray

HUMIDITY = channel_index("Humidity")
C2H5OH = channel_index("C2H5OH")
LPG = channel_index("LPG")
LN_1_5 = float(np.log(1.5))
STILL_AIR = np.array(
    [216, 305, 494, 730, 20, 380, 30, 25.5, 1022.75, 28.5, 69.5, -48], dtype=np.float32
)


def recording(seconds: int = 200) -> NDArray[np.float32]:
    signal = SyntheticSignal(f"air:{seconds // 2},almond:{seconds // 2}", seed=5)
    return np.array(list(signal))


def of_parts(**figures: float) -> OtherRig:
    return OtherRig("other", (OtherPart(**figures),) * N_GAS)


def ln_ratio(counts: NDArray[np.float32]) -> NDArray[np.float64]:
    count = counts.astype(np.float64)
    return np.log(count / (1023.0 - count))


def test_a_rig_without_differences_sends_the_same_readings() -> None:
    values = recording()
    assert np.array_equal(of_parts().transform(values, 1.0), values)


def test_only_the_same_seed_gives_the_same_rig() -> None:
    assert OtherRig.random(3) == OtherRig.random(3)
    assert OtherRig.random(3) != OtherRig.random(4)


@pytest.mark.parametrize(("figures", "shift"), [({"gain": 1.5}, LN_1_5), ({"r0": 1.5}, -LN_1_5)])
def test_gain_and_resistance_shift_the_logarithm_of_a_conductance(
    figures: dict[str, float], shift: float
) -> None:
    still = np.tile(STILL_AIR, (5, 1))
    sent = of_parts(**figures).transform(still, 1.0)
    moved = ln_ratio(sent[:, C2H5OH]) - ln_ratio(still[:, C2H5OH])
    assert moved == pytest.approx(np.full(5, shift), abs=0.003)
    resistance = sent[:, channel_index("Gas_Resistance")]
    assert resistance == pytest.approx(np.full(5, 69.5 * np.exp(-shift)), abs=0.02)
    # ppm = a (Rs / R0)^b is about its third power, in whole ppm.
    assert np.log(sent[:, LPG] / 380.0) == pytest.approx(np.full(5, 2.244 * shift), abs=0.003)


def test_sensitivity_scales_the_response_around_clean_air() -> None:
    clean = load_board().clean_air[GAS_INDICES.index(C2H5OH)]
    still = np.tile(STILL_AIR, (5, 1))
    sent = ln_ratio(of_parts(gamma=1.4).transform(still, 1.0)[:, C2H5OH])
    expected = clean + 1.4 * (ln_ratio(still[:, C2H5OH]) - clean)
    assert sent == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("rate_hz", [1.0, 10.0])
def test_a_slower_part_lags_by_its_response_time(rate_hz: float) -> None:
    rows = round(60 * rate_hz)
    step = np.tile(STILL_AIR, (rows, 1))
    step[rows // 2 :, C2H5OH] = 700.0
    sent = ln_ratio(of_parts(response_s=5.0).transform(step, rate_hz)[:, C2H5OH])
    low, high = ln_ratio(step[[0, -1], C2H5OH])
    after = rows // 2 + round(5 * rate_hz) - 1
    assert sent[rows // 2 - 1] == pytest.approx(low, abs=0.005)
    assert (sent[after] - low) / (high - low) == pytest.approx(1 - np.exp(-1), abs=0.01)


def test_humidity_shifts_the_channels_unless_the_bme680_has_hung() -> None:
    humid = np.tile(STILL_AIR, (5, 1))
    humid[:, HUMIDITY] = 48.5
    rig = of_parts(humidity=0.1)
    moved = ln_ratio(rig.transform(humid, 1.0)[:, C2H5OH]) - ln_ratio(humid[:, C2H5OH])
    assert moved == pytest.approx(np.full(5, 0.2), abs=0.005)
    hung = humid.copy()
    hung[:, HUMIDITY], hung[:, channel_index("Gas_Resistance")] = 100.0, 0.0
    assert np.array_equal(rig.transform(hung, 1.0), hung)


def test_drift_has_the_stated_spread_after_an_hour_and_differs_between_recordings() -> None:
    still = np.tile(STILL_AIR, (3601, 1))
    rig = of_parts(drift=0.2)
    ends = np.array([rig.transform(still, 1.0, drift_seed=seed)[-1, C2H5OH] for seed in range(40)])
    walked = ln_ratio(ends) - ln_ratio(STILL_AIR[[C2H5OH]])
    assert walked.std() == pytest.approx(0.2, rel=0.35)
    again = rig.transform(still, 1.0)
    assert np.array_equal(again, rig.transform(still, 1.0))
    assert not np.array_equal(again[:-1], rig.transform(still[:-1], 1.0))


def test_readings_are_rounded_and_within_what_a_board_can_send() -> None:
    extreme = [of_parts(r0=r0, gamma=gamma) for r0 in (0.02, 50.0) for gamma in (0.3, 3.0)]
    for rig in (OtherRig.random(1), *extreme):
        sent = rig.transform(recording(), 1.0)
        grove, mq = sent[:, :4], sent[:, 4:7]
        assert np.array_equal(grove, np.rint(grove))
        assert np.array_equal(mq, np.rint(mq))
        assert grove.min() >= 1
        assert grove.max() <= 1022
        assert mq.min() >= 0
        resistance = sent[:, channel_index("Gas_Resistance")]
        assert np.array_equal(resistance, np.round(resistance.astype(float), 2).astype(np.float32))


def test_readings_that_are_no_measurements_stay_as_they_are() -> None:
    values = np.tile(STILL_AIR, (4, 1))
    values[1, C2H5OH] = np.nan
    values[2, LPG] = UINT32_INFINITY
    values[3, 0] = 0.0
    sent = FIXED_RIG.transform(values, 1.0)
    assert np.isnan(sent[1, C2H5OH])
    assert sent[2, LPG] == np.float32(UINT32_INFINITY)
    assert sent[3, 0] == 0.0
    assert np.isfinite(sent[2:, C2H5OH]).all()


def test_a_signal_and_a_whole_recording_are_transformed_alike() -> None:
    signal = SyntheticSignal("air:60,banana:60", seed=2)
    whole = FIXED_RIG.transform(np.array(list(signal)), signal.rate_hz, drift_seed=0)
    live = OtherRigSignal(signal, FIXED_RIG)
    assert np.array_equal(np.array(list(live)), whole)
    assert np.array_equal(np.array(list(live)), whole)  # every iteration starts at the beginning


def test_fixed_rig_differs_on_every_gas_channel() -> None:
    sent = FIXED_RIG.transform(recording(), 1.0)
    moved = np.abs(sent - recording()).max(axis=0)
    assert (moved[list(GAS_INDICES[:6])] > 0).all()


def test_rig_reads_back_as_it_was_written(tmp_path: Path) -> None:
    for rig in (FIXED_RIG, OtherRig.random(11)):
        write_rig(rig, tmp_path / "rig.yaml")
        assert read_rig(tmp_path / "rig.yaml") == rig


def test_missing_figures_are_those_of_the_training_rig(tmp_path: Path) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text("version: 1\nchannels: {VOC: {gamma: 1.2}}\n")
    parts = read_rig(path).parts
    assert parts[2] == OtherPart(gamma=1.2)
    assert {parts[i] for i in range(N_GAS) if i != 2} == {OtherPart()}


def test_rig_of_the_documentation_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "simulator.md").read_text(encoding="utf-8")
    path = tmp_path / "other.yaml"
    path.write_text(page.split("```yaml\n", 1)[1].split("```", 1)[0])
    rig = read_rig(path)
    assert rig.name == "other"
    assert rig.parts[2] == OtherPart(gain=0.85, r0=1.3, gamma=0.8, response_s=1.2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("version: 2\n", "version is 2"),
        ("channels: {}\n", "version"),
        ("just words\n", "describes no rig"),
        ("version: 1\nchannels: {Smell: {gain: 2}}\n", "Smell"),
        ("version: 1\nchannels: {VOC: {gian: 2}}\n", "gian"),
        ("version: 1\nchannels: {VOC: {gain: 0}}\n", "above zero"),
        ("version: 1\nchannels: {VOC: {gain: much}}\n", "much"),
        ("version: 1\nenvironment: {Humidity: .nan}\n", "finite"),
        ("{", "this is not YAML"),
    ],
)
def test_a_file_that_describes_no_rig_is_refused_with_a_remedy(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(text)
    with pytest.raises(OtherRigError, match=complaint):
        read_rig(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OtherRigError, match="nowhere"):
        read_rig(tmp_path / "nowhere.yaml")


def test_impossible_figures_are_refused() -> None:
    for figures in ({"gamma": -1.0}, {"response_s": -1.0}, {"offset": 1.0}, {"gain": np.inf}):
        with pytest.raises(UsageError, match="A part's"):
            OtherPart(**figures)


@pytest.mark.data
def test_the_shipped_model_scores_much_lower_on_the_fixed_rig(smellnet: Path) -> None:
    bundle = load_bundle("substances-50")
    data = load_substances(smellnet / "base")
    data = data.subset(substance_folds(data) == 0)
    elsewhere = dataclasses.replace(
        data,
        samples=tuple(
            dataclasses.replace(sample, values=FIXED_RIG.transform(sample.values, sample.rate_hz))
            for sample in data.samples
        ),
    )
    at_home, away = (
        score_bundle(bundle, recordings, run_network(bundle, recordings))["top1"]
        for recordings in (data, elsewhere)
    )
    assert away < 0.7 * at_home
