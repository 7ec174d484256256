"""Scenarios: from text to episodes, and unreadable ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardware.errors import UsageError
from hardware.simulator.scenario import MAX_CONCENTRATION, Episode, parse_scenario

SUBSTANCES = ("almond", "banana", "mango", "sweet_potato")


def test_the_documented_scenario_is_read() -> None:
    episodes = parse_scenario("almond:60,air:30,banana=.5+mango=.5:60", SUBSTANCES)
    assert episodes == (
        Episode((("almond", 1.0),), 60.0),
        Episode((), 30.0),
        Episode((("banana", 0.5), ("mango", 0.5)), 60.0),
    )


def test_spaces_around_parts_do_not_matter() -> None:
    spaced = parse_scenario(" almond : 60 , air : 30 , banana = .5 + mango = .5 : 60 ", SUBSTANCES)
    assert spaced == parse_scenario("almond:60,air:30,banana=.5+mango=.5:60", SUBSTANCES)


def test_a_name_in_singular_or_plural_becomes_the_boards_own() -> None:
    """The two published kinds of recording call one spice clove and cloves."""
    for written in ("clove", "cloves"):
        for own in ("clove", "cloves"):
            (episode,) = parse_scenario(f"{written}:60", {own, "chives"})
            assert episode.components == ((own, 1.0),)
    with pytest.raises(UsageError, match="twice"):
        parse_scenario("clove=.5+cloves=.5:60", {"cloves"})


_concentrations = st.floats(min_value=1e-6, max_value=MAX_CONCENTRATION)
_components = st.lists(
    st.tuples(st.sampled_from(SUBSTANCES), _concentrations), max_size=4, unique_by=lambda c: c[0]
)
_episodes = st.builds(
    Episode,
    _components.map(tuple),
    st.floats(min_value=1e-3, max_value=1e6),
)


@given(st.lists(_episodes, min_size=1, max_size=6))
def test_episodes_written_as_a_scenario_read_back_the_same(episodes: list[Episode]) -> None:
    text = ",".join(str(episode) for episode in episodes)
    assert parse_scenario(text, SUBSTANCES) == tuple(episodes)


@given(st.text(alphabet="almondir:=+.,-0159 \t", max_size=40))
def test_any_text_gives_episodes_or_a_usage_error(text: str) -> None:
    try:
        episodes = parse_scenario(text, SUBSTANCES)
    except UsageError as error:
        assert str(error).endswith(".")  # noqa: PT017 - both outcomes are allowed and checked
        return
    assert all(episode.duration_s > 0 for episode in episodes)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "at least one episode"),
        ("almond", "'almond'"),
        ("almond:0", "'almond:0'"),
        ("almond:inf", "'almond:inf'"),
        ("almond:60,,air:3", "''"),
        ("almod:60", "'almod'"),
        ("almond=0:60", "'0'"),
        ("almond=nan:60", "'nan'"),
        ("almond=1e9:60", "'1e9'"),
        ("almond+almond:60", "twice"),
        ("air+almond:60", "mixes air"),
    ],
)
def test_an_unreadable_scenario_is_refused_with_its_episode(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_scenario(text, SUBSTANCES)
    assert named in str(caught.value)


def test_an_unknown_substance_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UsageError) as caught:
        parse_scenario("almod:60", SUBSTANCES)
    assert all(name in str(caught.value) for name in (*SUBSTANCES, "air"))
