"""What the demo concludes from a rig's messages, and how the views show it."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from daemon.demo.plain import plain_view, summary
from daemon.demo.scenario import RIGS, DemoSchedule, choose_schedule
from daemon.demo.screen import ROWS, WIDTH, screen, sparkline
from daemon.demo.state import RigState, Verdict
from hardware.channels import CHANNEL_NAMES
from hardware.simulator.scenario import Episode, parse_scenario
from hardware.simulator.tables import load_board, load_playable

SUBSTANCES, MIXTURES = RIGS
LEMON_AND_MINT = DemoSchedule(
    SUBSTANCES, parse_scenario("air:10,lemon:20,air:10,mint:20", {"lemon", "mint"})
)
APPLE_WITH_PEAR = DemoSchedule(
    MIXTURES, parse_scenario("air:10,apple=.5+pear=.5:20", {"apple", "pear"})
)


def receive_sample(rig: RigState, board_s: float) -> None:
    """Receive a raw frame of that moment."""
    values: dict[str, float | None] = dict.fromkeys(CHANNEL_NAMES, 1.0 + board_s)
    frame_seq = round(board_s * rig.setup.rate_hz)
    rig.receive("sample", {"frame_seq": frame_seq, "values": values})


def receive_substance(rig: RigState, board_s: float, label: str | None) -> None:
    """Receive a prediction of the substance model at that moment."""
    payload: dict[str, Any] = {
        "frame_seq": round(board_s * rig.setup.rate_hz),
        "state": "sensing" if label is None else "recognised",
        "label": label,
        "reason": None,
        "top": [{"label": label or "mint", "probability": 0.9}],
    }
    rig.receive("substance", payload)


def receive_mixture(rig: RigState, board_s: float, labels: tuple[str, ...]) -> None:
    receive_sample(rig, board_s)
    parts = [{"label": label, "proportion": 0.5, "presence": 0.9} for label in labels]
    state = "recognised" if labels else "sensing"
    rig.receive("mixture", {"state": state, "reason": None, "components": parts})


def lemon_named_mint_unnamed() -> RigState:
    """Receive a whole schedule: lemon is first named mint, then lemon; mint stays unnamed."""
    rig = RigState(LEMON_AND_MINT)
    for board_s, label in ((5, None), (15, "mint"), (22, "lemon"), (35, None), (55, None)):
        receive_sample(rig, board_s)
        receive_substance(rig, board_s, label)
    receive_sample(rig, 65)
    return rig


def test_the_last_name_of_an_odour_is_its_result() -> None:
    lemon, mint = lemon_named_mint_unnamed().results
    assert (lemon.odour, lemon.names, lemon.verdict) == (("lemon",), ("lemon",), Verdict.RIGHT)
    assert lemon.after_s == 12
    assert (mint.names, mint.verdict) == ((), Verdict.UNNAMED)
    assert lemon.finished
    assert mint.finished


def test_a_name_that_stays_keeps_the_moment_it_was_first_given() -> None:
    rig = RigState(LEMON_AND_MINT)
    for board_s in (20, 25, 29):
        receive_substance(rig, board_s, "lemon")
    assert [result.after_s for result in rig.results] == [10]


def test_a_name_given_in_clean_air_counts_for_no_odour() -> None:
    rig = RigState(LEMON_AND_MINT)
    receive_substance(rig, 5, "lemon")
    assert rig.names == ("lemon",)
    assert rig.results == []


def test_an_odour_in_the_air_has_a_result_only_once_it_is_named() -> None:
    rig = RigState(LEMON_AND_MINT)
    receive_substance(rig, 15, None)
    assert rig.results == []
    receive_substance(rig, 16, "mint")
    assert [(item.verdict, item.finished) for item in rig.results] == [(Verdict.WRONG, False)]


@pytest.mark.parametrize(
    ("labels", "verdict"),
    [
        (("pear", "apple"), "right"),
        (("apple",), "partly right"),
        (("apple", "pear", "plum"), "partly right"),
        (("plum",), "wrong"),
    ],
)
def test_a_mixture_is_right_with_all_its_components_and_no_other(
    labels: tuple[str, ...], verdict: str
) -> None:
    rig = RigState(APPLE_WITH_PEAR)
    receive_mixture(rig, 20, labels)
    assert [result.verdict for result in rig.results] == [verdict]


@given(st.floats(0, 1e5))
def test_every_moment_lies_in_one_episode(board_s: float) -> None:
    episode = LEMON_AND_MINT.episode_at(board_s)
    assert episode.start_s - 1e-6 <= board_s < episode.end_s + 1e-6
    assert episode.odour == ((), ("lemon",), (), ("mint",))[episode.number % 4]
    following = LEMON_AND_MINT.episode_at(episode.end_s + 1e-3)
    assert following.number == episode.number + 1


@pytest.mark.parametrize("rig", RIGS, ids=lambda rig: rig.rig_id)
def test_the_odours_played_are_those_that_the_simulator_found_recognisable(rig: Any) -> None:
    schedule = choose_schedule(rig, seed=3)
    known = {item.odour for item in load_playable(rig.board, least_right=0.0)}
    odours = [episode for episode in schedule.episodes if episode.components]
    fingerprints = load_board(rig.board).fingerprints
    assert len(odours) >= 3
    assert set(odours) <= {
        parse_scenario(f"{name}:{rig.odour_s}", fingerprints)[0] for name in known
    }
    assert [bool(episode.components) for episode in schedule.episodes[:2]] == [False, True]
    assert schedule.episodes == choose_schedule(rig, seed=3).episodes


def test_the_order_of_the_odours_changes_with_the_seed() -> None:
    orders = {choose_schedule(SUBSTANCES, seed).episodes for seed in range(8)}
    assert len(orders) > 1
    assert all(isinstance(episode, Episode) for order in orders for episode in order)


def test_a_sparkline_shows_movement_and_keeps_noise_flat() -> None:
    assert sparkline([]) == ""
    rising = sparkline([*range(100, 300, 20), None, 300])
    assert (rising[0], rising[-2:]) == ("▁", " █")
    assert list(rising[:10]) == sorted(rising[:10])
    assert set(sparkline([300, 301, 300, 302])) <= set("▁▂▃")
    assert set(sparkline([10, 11, 10, 11, 11, 10])) <= set("▁▂")


def test_the_screen_fits_the_smallest_terminal_and_shows_all_that_matters() -> None:
    named, silent = lemon_named_mint_unnamed(), RigState(APPLE_WITH_PEAR)
    receive_substance(named, 75, "lemon")
    console = Console(width=WIDTH, height=ROWS, file=io.StringIO(), record=True)
    console.print(
        screen([named, silent], width=WIDTH, height=ROWS, address="127.0.0.1:1883", elapsed_s=75.0)
    )
    lines = console.export_text().splitlines()
    assert len(lines) <= ROWS
    assert max(map(len, lines)) <= WIDTH
    text = "\n".join(lines)
    assert "in the air   lemon" in text
    assert "scentd says  ✔ lemon" in text
    assert "1 of 2 named right" in text
    assert "C2H5OH" in text
    assert "127.0.0.1:1883" in text


def test_the_screen_says_why_a_model_cannot_run() -> None:
    rig = RigState(APPLE_WITH_PEAR)
    rig.receive("mixture", {"state": "disabled", "reason": "too slow a board", "components": []})
    console = Console(width=WIDTH, height=ROWS, file=io.StringIO(), record=True)
    console.print(screen([rig], width=WIDTH, height=ROWS, address="", elapsed_s=0.0))
    assert "too slow a board" in console.export_text()


def test_the_plain_view_prints_changes_and_nothing_else() -> None:
    stream = io.StringIO()
    update = plain_view(stream)
    rig = RigState(LEMON_AND_MINT)
    update([rig], 0.0)
    assert not stream.getvalue()
    for board_s, label in ((5, None), (6, None), (20, "lemon"), (22, "lemon")):
        receive_sample(rig, board_s)
        receive_substance(rig, board_s, label)
        update([rig], board_s)
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines == [
        "0:05 substances in the air clean air",
        "0:05 substances says smells something",
        "0:20 substances in the air lemon",
        "0:20 substances says lemon (right, 10 s after its onset)",
    ]


def test_the_plain_view_gives_no_verdict_on_a_name_older_than_the_odour() -> None:
    stream = io.StringIO()
    update = plain_view(stream)
    rig = RigState(LEMON_AND_MINT)
    receive_substance(rig, 20, "lemon")
    receive_sample(rig, 45)
    update([rig], 45.0)
    assert [line.split(maxsplit=2)[2] for line in stream.getvalue().splitlines()] == [
        "in the air mint",
        "says       lemon",
    ]


def test_the_summary_compares_what_was_played_with_what_was_named() -> None:
    table = [" ".join(line.split()) for line in summary([lemon_named_mint_unnamed()]).splitlines()]
    assert table == [
        "played said",
        "right lemon lemon, after 12 s",
        "without a name mint -",
        "substances: 1 of 2 named right, 1 without a name.",
    ]
