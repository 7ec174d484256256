"""Models: a prediction as plain values: what MQTT carries, `replay` prints and `rescore` stores.

Pure. Numbers are rounded to the digits that are published, finite or None.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.results import Prediction

Fields = dict[str, Any]


def rounded(value: float | None, digits: int) -> float | None:
    """Return `value` rounded, None for a value that is missing or not finite."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def prediction_fields(prediction: Prediction) -> Fields:
    """Return the fields of a prediction, by its task, without those of a message's envelope."""
    build = _substance if prediction.task == "substance" else _mixture
    return {
        "frame_seq": prediction.frame_seq,
        "state": str(prediction.state),
        **build(prediction),
        "reason": prediction.reason,
        "window_s": rounded(prediction.window_s, 3),
        "model": prediction.model,
        "calibration": prediction.calibration,
        "foreign_board": prediction.foreign_board,
        "resampled": prediction.resampled,
        "taught": prediction.taught,
        "clean_air": None
        if prediction.clean_air is None
        else {
            "source": str(prediction.clean_air),
            "age_s": rounded(prediction.clean_air_age_s, 1),
        },
        "latency_ms": rounded(prediction.latency_ms, 3),
        "channels_missing": list(prediction.channels_missing),
    }


def _substance(prediction: Prediction) -> Fields:
    return {
        "label": prediction.label,
        "probability": rounded(prediction.probability, 4),
        "top": [
            {"label": label, "probability": rounded(probability, 4)}
            for label, probability in prediction.top
        ],
        "set": {
            "coverage": rounded(prediction.set_coverage, 4),
            "labels": list(prediction.label_set),
        }
        if prediction.label_set
        else None,
        "short_list": {
            "coverage": rounded(prediction.list_coverage, 4),
            "labels": list(prediction.short_list),
        }
        if prediction.short_list
        else None,
        "novelty": rounded(prediction.novelty, 4),
        "descriptors": [
            {"name": name, "fit": rounded(fit, 4)} for name, fit in prediction.descriptors
        ],
    }


def _mixture(prediction: Prediction) -> Fields:
    return {
        "components": [
            {
                "label": part.label,
                "proportion": rounded(part.proportion, 4),
                "presence": rounded(part.presence, 4),
                "low": rounded(part.low, 4),
                "high": rounded(part.high, 4),
            }
            for part in prediction.components
        ],
        "groups": [
            {"labels": list(group.labels), "presence": rounded(group.presence, 4)}
            for group in prediction.groups
        ],
        "candidates": [
            {
                "label": part.label,
                "proportion": rounded(part.proportion, 4),
                "presence": rounded(part.presence, 4),
            }
            for part in prediction.candidates
        ],
        "unexplained": prediction.unexplained,
    }
