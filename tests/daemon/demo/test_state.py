"""What the demo concludes from a rig's messages, and how the views show it."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from daemon.demo.plain import plain_view, summary
from daemon.demo.scenario import RIGS, DemoRig, DemoSchedule, choose_schedule
from daemon.demo.screen import ROWS, WIDTH, screen, sparkline
from daemon.demo.state import RigState, Verdict
from hardware.channels import CHANNEL_NAMES
from hardware.simulator.scenario import Episode, parse_scenario
from hardware.simulator.tables import load_board

SUBSTANCES = replace(RIGS[0], taught=("lemon", "mint"))
MIXTURES = replace(RIGS[1], taught=("apple", "pear", "plum"))
LEMON_AND_MINT = DemoSchedule(
    SUBSTANCES, parse_scenario("air:10,lemon:20,air:10,mint:20", {"lemon", "mint"})
)
LEMON_AND_SOAP = DemoSchedule(
    SUBSTANCES, parse_scenario("air:10,lemon:20,air:10,soap:20", {"lemon", "soap"})
)
APPLE_WITH_PEAR = DemoSchedule(
    MIXTURES, parse_scenario("air:10,apple=.5+pear=.5:20", {"apple", "pear"})
)


def receive_sample(rig: RigState, board_s: float) -> None:
    """Receive a raw frame of that moment."""
    values: dict[str, float | None] = dict.fromkeys(CHANNEL_NAMES, 1.0 + board_s)
    frame_seq = round(board_s * rig.setup.rate_hz)
    rig.receive("sample", {"frame_seq": frame_seq, "values": values})


def receive_substance(
    rig: RigState, board_s: float, label: str | None, state: str | None = None
) -> None:
    """Receive a prediction of a single substance at that moment."""
    payload: dict[str, Any] = {
        "frame_seq": round(board_s * rig.setup.rate_hz),
        "state": state or ("sensing" if label is None else "recognised"),
        "label": label,
        "reason": None,
        "top": [{"label": label or "mint", "probability": 0.9}],
    }
    rig.receive("substance", payload)


def receive_mixture(rig: RigState, board_s: float, labels: tuple[str, ...]) -> None:
    rig.receive(
        "mixture",
        {
            "frame_seq": round(board_s * rig.setup.rate_hz),
            "state": "recognised" if labels else "sensing",
            "reason": None,
            "components": [
                {"label": label, "proportion": 0.5, "presence": 0.9} for label in labels
            ],
        },
    )


def shown(rigs: list[RigState], width: int) -> str:
    """Return what the screen shows on a terminal of so many columns."""
    console = Console(width=width, height=ROWS, file=io.StringIO(), record=True)
    console.print(
        screen(
            rigs,
            width=width,
            height=ROWS,
            address="127.0.0.1:21883",
            page="http://127.0.0.1:8733/",
            elapsed_s=605.0,
        )
    )
    return console.export_text()


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


@pytest.mark.parametrize(
    ("label", "state", "verdict"),
    [
        (None, "unrecognised", "right"),
        ("lemon", None, "wrong"),
        (None, "sensing", "without a name"),
    ],
)
def test_a_smell_that_was_never_taught_is_right_when_it_is_unrecognised(
    label: str | None, state: str | None, verdict: str
) -> None:
    rig = RigState(LEMON_AND_SOAP)
    receive_substance(rig, 50, label, state)
    receive_sample(rig, 65)
    assert [(item.taught, item.verdict) for item in rig.results] == [(False, verdict)]
    assert summary([rig]).splitlines()[-1] == "substances: 0 of 0 named right"


def test_a_taught_smell_that_ends_unrecognised_has_no_name() -> None:
    rig = RigState(LEMON_AND_MINT)
    receive_substance(rig, 15, "lemon")
    receive_substance(rig, 25, None, "unrecognised")
    assert [item.verdict for item in rig.results] == [Verdict.UNNAMED]


@pytest.mark.parametrize("state", ["ambient", "recovering", "warming_up"])
def test_without_an_odour_no_candidates_are_shown(state: str) -> None:
    rig = RigState(LEMON_AND_MINT)
    receive_substance(rig, 15, "lemon")
    assert rig.bars == (("lemon", 0.9),)
    receive_substance(rig, 35, None, state)
    assert rig.bars == ()


@given(st.floats(0, 1e5))
def test_every_moment_lies_in_one_episode(board_s: float) -> None:
    episode = LEMON_AND_MINT.episode_at(board_s)
    assert episode.start_s - 1e-6 <= board_s < episode.end_s + 1e-6
    assert episode.odour == ((), ("lemon",), (), ("mint",))[episode.number % 4]
    following = LEMON_AND_MINT.episode_at(episode.end_s + 1e-3)
    assert following.number == episode.number + 1


@pytest.mark.parametrize("rig", RIGS, ids=lambda rig: rig.rig_id)
def test_what_is_played_was_taught_but_for_one_smell_in_the_first_minute(rig: DemoRig) -> None:
    schedule = choose_schedule(rig, seed=3)
    assert set(rig.taught) <= set(load_board(rig.board).fingerprints)
    starts_s = accumulate((episode.duration_s for episode in schedule.episodes), initial=0.0)
    episodes = [schedule.episode_at(start_s + 1.0) for start_s in starts_s][:-1]
    assert [bool(episode.odour) for episode in episodes[:4]] == [False, True, False, True]
    assert len([episode for episode in episodes if episode.odour and episode.taught]) >= 3
    new = [episode for episode in episodes if not episode.taught]
    assert [episode.odour for episode in new] == [(rig.never_taught,)] * (
        rig.never_taught is not None
    )
    assert all(episode.end_s < 60.0 * rig.speed for episode in new)
    assert schedule.episodes == choose_schedule(rig, seed=3).episodes


def test_the_order_of_the_odours_changes_with_the_seed() -> None:
    orders = {choose_schedule(RIGS[0], seed).episodes for seed in range(8)}
    assert len(orders) > 1
    assert all(isinstance(episode, Episode) for order in orders for episode in order)


def test_a_sparkline_shows_movement_and_keeps_noise_flat() -> None:
    assert sparkline([]) == ""
    rising = sparkline([*range(100, 300, 20), None, 300])
    assert (rising[0], rising[-2:]) == ("▁", " █")
    assert list(rising[:10]) == sorted(rising[:10])
    assert set(sparkline([300, 301, 300, 302])) <= set("▁▂▃")
    assert set(sparkline([10, 11, 10, 11, 11, 10])) <= set("▁▂")


def test_a_wobble_of_one_count_stays_at_the_bottom_of_a_sparkline() -> None:
    assert set(sparkline([9, 10, 10, 10, 10, 10, 10, 10, 10], 12.0)) <= set("▁▂")
    assert set(sparkline([25.1, 25.1, 25.3, 25.4, 25.4, 25.5], 5.0)) <= set("▁▂")


@pytest.mark.parametrize("width", [80, 100, 140])
def test_no_name_is_cut(width: int) -> None:
    """A mixture of the longest names goes on in further rows."""
    rig = RigState(APPLE_WITH_PEAR)
    receive_mixture(rig, 20, ("sweet_potato", "mandarin_orange", "star_anise"))
    text = shown([rig, rig], width)
    for name in ("sweet potato", "mandarin orange", "star anise"):
        assert "".join(text.split()).count("".join(name.split())) >= 2, name
    assert "…" not in text


def test_scores_that_do_not_fit_are_left_out_as_a_whole() -> None:
    rig = RigState(LEMON_AND_MINT)
    for number in range(30):
        receive_substance(rig, 60 * number + 20, "mint")
        receive_substance(rig, 60 * number + 50, "mint")
    receive_sample(rig, 1805)
    (line,) = [line for line in shown([rig, rig], WIDTH).splitlines() if "named right" in line][:1]
    assert "30 of 60 named right" in line
    assert line.split("named right")[1].count("mint") >= 2
    assert line.rstrip().endswith(("✔ mint", "✘ lemon (mint?)"))


def test_the_screen_says_at_once_how_long_a_name_takes() -> None:
    text = " ".join(shown([RigState(LEMON_AND_MINT)], WIDTH).split())
    assert f"A name takes {SUBSTANCES.named_after}" in text


def test_the_screen_fits_the_smallest_terminal_and_shows_all_that_matters() -> None:
    named, silent = lemon_named_mint_unnamed(), RigState(APPLE_WITH_PEAR)
    receive_substance(named, 75, "lemon")
    console = Console(width=WIDTH, height=ROWS, file=io.StringIO(), record=True)
    console.print(
        screen(
            [named, silent],
            width=WIDTH,
            height=ROWS,
            address="127.0.0.1:1883",
            page="http://127.0.0.1:8733/",
            elapsed_s=75.0,
        )
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
    reason = "too slow a board"
    payload = {"frame_seq": 0, "state": "disabled", "reason": reason, "components": []}
    rig.receive("mixture", payload)
    assert reason in shown([rig], WIDTH)


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
        "in the air  mint",
        "says        lemon",
    ]


def test_on_a_terminal_the_plain_view_breaks_lines_between_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "60")
    rig, stream = RigState(APPLE_WITH_PEAR), Terminal()
    receive_sample(rig, 20)
    receive_mixture(rig, 20, ("apple", "mandarin_orange", "pear", "sweet_potato"))
    plain_view(stream)([rig], 20.0)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()).endswith(
        "says apple + mandarin orange + pear + sweet potato (partly right, 10 s after its onset)"
    )


def test_the_summary_compares_what_was_played_with_what_was_named() -> None:
    table = [" ".join(line.split()) for line in summary([lemon_named_mint_unnamed()]).splitlines()]
    assert table == [
        "played said",
        "right lemon lemon, after 12 s",
        "without a name mint -",
        "substances, besides: 1 without a name",
        "substances: 1 of 2 named right",
    ]
