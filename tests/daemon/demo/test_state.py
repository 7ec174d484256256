"""What the demo makes of a rig's messages, and how it says so."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from daemon.demo.plain import PlainView, summary
from daemon.demo.scenario import RIGS, DemoSchedule, choose_programme
from daemon.demo.screen import ROWS, WIDTH, screen, sparkline
from daemon.demo.state import RigState
from daemon.demo.wording import judged
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


def hear_sample(story: RigState, board_s: float) -> None:
    """Let the rig publish a raw frame of that moment."""
    values: dict[str, float | None] = dict.fromkeys(CHANNEL_NAMES, 1.0 + board_s)
    frame_seq = round(board_s * story.programme.rig.rate_hz)
    story.hear("sample", {"frame_seq": frame_seq, "values": values})


def hear_substance(story: RigState, board_s: float, label: str | None) -> None:
    """Let the rig publish what the substance model says at that moment."""
    payload: dict[str, Any] = {
        "frame_seq": round(board_s * story.programme.rig.rate_hz),
        "state": "sensing" if label is None else "recognised",
        "label": label,
        "reason": None,
        "top": [{"label": label or "mint", "probability": 0.9}],
    }
    story.hear("substance", payload)


def hear_mixture(story: RigState, board_s: float, labels: tuple[str, ...]) -> None:
    hear_sample(story, board_s)
    parts = [{"label": label, "proportion": 0.5, "presence": 0.9} for label in labels]
    state = "recognised" if labels else "sensing"
    story.hear("mixture", {"state": state, "reason": None, "components": parts})


def lemon_named_mint_missed() -> RigState:
    """Tell a whole programme: lemon is first taken for mint, then named; mint stays unnamed."""
    story = RigState(LEMON_AND_MINT)
    for board_s, label in ((5, None), (15, "mint"), (22, "lemon"), (35, None), (55, None)):
        hear_sample(story, board_s)
        hear_substance(story, board_s, label)
    hear_sample(story, 65)
    return story


def test_the_last_name_of_an_odour_is_its_verdict() -> None:
    lemon, mint = lemon_named_mint_missed().verdicts
    assert (lemon.played, lemon.said, lemon.right, lemon.over) == (("lemon",),) * 2 + (True, True)
    assert lemon.after_s == 12
    assert (mint.said, mint.right, mint.over) == ((), False, True)


def test_a_name_that_stays_keeps_the_moment_it_was_first_given() -> None:
    story = RigState(LEMON_AND_MINT)
    for board_s in (20, 25, 29):
        hear_substance(story, board_s, "lemon")
    assert [verdict.after_s for verdict in story.verdicts] == [10]


def test_a_name_given_in_clean_air_counts_for_no_odour() -> None:
    story = RigState(LEMON_AND_MINT)
    hear_substance(story, 5, "lemon")
    assert story.said == ("lemon",)
    assert story.verdicts == []


def test_an_odour_in_the_air_is_judged_only_once_it_has_a_name() -> None:
    story = RigState(LEMON_AND_MINT)
    hear_substance(story, 15, None)
    assert story.verdicts == []
    hear_substance(story, 16, "mint")
    assert [(verdict.right, verdict.over) for verdict in story.verdicts] == [(False, False)]


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
    story = RigState(APPLE_WITH_PEAR)
    hear_mixture(story, 20, labels)
    assert [judged(told) for told in story.verdicts] == [verdict]


@settings(deadline=None)  # time is not what it asserts
@given(st.floats(0, 1e5))
def test_every_moment_lies_in_one_act(board_s: float) -> None:
    act = LEMON_AND_MINT.act_at(board_s)
    assert act.start_s - 1e-6 <= board_s < act.end_s + 1e-6
    assert act.odour == ((), ("lemon",), (), ("mint",))[act.number % 4]
    following = LEMON_AND_MINT.act_at(act.end_s + 1e-3)
    assert following.number == act.number + 1


@pytest.mark.parametrize("rig", RIGS, ids=lambda rig: rig.rig_id)
def test_a_cast_is_of_odours_that_the_simulator_found_recognisable(rig: Any) -> None:
    programme = choose_programme(rig, seed=3)
    known = {member.odour for member in load_playable(rig.board, least_right=0.0)}
    odours = [episode for episode in programme.episodes if episode.components]
    fingerprints = load_board(rig.board).fingerprints
    assert len(odours) >= 3
    assert set(odours) <= {
        parse_scenario(f"{name}:{rig.odour_s}", fingerprints)[0] for name in known
    }
    assert [bool(episode.components) for episode in programme.episodes[:2]] == [False, True]
    assert programme.episodes == choose_programme(rig, seed=3).episodes


def test_the_cast_changes_with_the_seed() -> None:
    orders = {choose_programme(SUBSTANCES, seed).episodes for seed in range(8)}
    assert len(orders) > 1
    assert all(isinstance(episode, Episode) for order in orders for episode in order)


def test_a_sparkline_shows_movement_and_keeps_noise_flat() -> None:
    assert sparkline([]) == ""
    rising = sparkline([*range(100, 300, 20), None, 300])
    assert (rising[0], rising[-2:]) == ("▁", " █")
    assert list(rising[:10]) == sorted(rising[:10])
    assert set(sparkline([300, 301, 300, 302])) <= set("▁▂▃")
    assert set(sparkline([10, 11, 10, 11, 11, 10])) <= set("▁▂")


def test_the_screen_fits_the_smallest_terminal_and_says_what_matters() -> None:
    told, untold = lemon_named_mint_missed(), RigState(APPLE_WITH_PEAR)
    hear_substance(told, 75, "lemon")
    console = Console(width=WIDTH, height=ROWS, file=io.StringIO(), record=True)
    console.print(
        screen([told, untold], width=WIDTH, height=ROWS, place="127.0.0.1:1883", elapsed_s=75.0)
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
    story = RigState(APPLE_WITH_PEAR)
    story.hear("mixture", {"state": "disabled", "reason": "too slow a board", "components": []})
    console = Console(width=WIDTH, height=ROWS, file=io.StringIO(), record=True)
    console.print(screen([story], width=WIDTH, height=ROWS, place="", elapsed_s=0.0))
    assert "too slow a board" in console.export_text()


def test_the_plain_view_prints_changes_and_nothing_else() -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    story = RigState(LEMON_AND_MINT)
    view.look([story], 0.0)
    assert not stream.getvalue()
    for board_s, label in ((5, None), (6, None), (20, "lemon"), (22, "lemon")):
        hear_sample(story, board_s)
        hear_substance(story, board_s, label)
        view.look([story], board_s)
    lines = [" ".join(line.split()) for line in stream.getvalue().splitlines()]
    assert lines == [
        "0:05 substances in the air clean air",
        "0:05 substances says smells something",
        "0:20 substances in the air lemon",
        "0:20 substances says lemon (right, 10 s after its onset)",
    ]


def test_the_plain_view_judges_no_name_that_is_older_than_the_odour() -> None:
    stream = io.StringIO()
    view = PlainView(stream)
    story = RigState(LEMON_AND_MINT)
    hear_substance(story, 20, "lemon")
    hear_sample(story, 45)
    view.look([story], 45.0)
    assert [line.split(maxsplit=2)[2] for line in stream.getvalue().splitlines()] == [
        "in the air mint",
        "says       lemon",
    ]


def test_the_summary_sets_what_was_played_against_what_was_said() -> None:
    table = [" ".join(line.split()) for line in summary([lemon_named_mint_missed()]).splitlines()]
    assert table == [
        "played said",
        "right lemon lemon, after 12 s",
        "without a name mint -",
        "substances: 1 of 2 named right, 1 without a name.",
    ]
