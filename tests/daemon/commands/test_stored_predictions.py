"""The shipped bundles give the predictions that were stored when they were trained.

`tests/models/stored_predictions` holds simulated recordings and, for each bundle, the output of
`scentd replay RECORDING --model BUNDLE --json` (without latencies and file names) of the version
that trained it. The recording of fruits is that of substances without MQ parts, its Grove channels
shifted to the clean air of the board of fruits-5. Payloads round probabilities to four digits; a
difference is a change of behaviour.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from daemon.cli import main

STORED = Path(__file__).parents[2] / "models" / "stored_predictions"
RECORDINGS = {
    "substances-50": "substances.csv.gz",
    "paper-50": "substances.csv.gz",
    "mixtures-12": "mixtures.csv.gz",
    "fruits-5": "fruits.csv.gz",
}
LAST_DIGIT = 1.01e-4
"""Another processor's kernels may round the fourth digit the other way."""


def stored(name: str) -> list[dict[str, Any]]:
    lines = gzip.decompress((STORED / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


def numbers_and_rest(value: Any) -> tuple[list[float], Any]:
    """Separate the fractions of a payload from everything that must be equal."""
    if isinstance(value, float):
        return [value], None
    if isinstance(value, dict):
        value = {key: value[key] for key in sorted(value)}
        parts = {key: numbers_and_rest(inner) for key, inner in value.items()}
        return [x for found, _ in parts.values() for x in found], {
            key: rest for key, (_, rest) in parts.items()
        }
    if isinstance(value, list):
        items = [numbers_and_rest(inner) for inner in value]
        return [x for found, _ in items for x in found], [rest for _, rest in items]
    return [], value


@pytest.mark.parametrize("name", sorted(RECORDINGS))
def test_a_shipped_bundle_predicts_what_was_stored(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(STORED / RECORDINGS[name]), "--model", name, "--json"]) == 0
    payloads = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = stored(name)
    assert len(payloads) == len(expected) > 25
    for payload, reference in zip(payloads, expected, strict=True):
        # A key that a later version adds is no change of the stored ones.
        kept = {key: payload[key] for key in reference}
        found, rest = numbers_and_rest(kept)
        numbers, same = numbers_and_rest(reference)
        assert rest == same
        assert found == pytest.approx(numbers, abs=LAST_DIGIT)
