"""Daemon: what a rig smells in its first seconds: the end of `scentd setup`.

Runs the configured models on the board for a short time; publishes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.board.port import Chunk, PortClosed, SourceError, monotonic_ms, read_port
from daemon.installed_models.loading import load_models, nose_settings
from daemon.service.report import prediction_sentence
from daemon.system.signals import StopEvent
from hardware.protocol import LineDecoder
from models.nose import Nose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from daemon.config.settings import Config
    from models.results import Prediction

UNKNOWN_BOARD = (
    "This board is unlike the one that the models were trained on, so that their names mean "
    "nothing here. Teach it your smells: scentd enroll LABEL."
)


def look_for(config: Config, seconds: float) -> list[str]:
    """Return sentences on what the models say after some seconds of a board's readings.

    The sensors are taken to be warm.

    Raises
    ------
    ScentdError: the port or a model cannot be used.
    """
    nose = Nose(
        load_models(config), nose_settings(config), rate_hz=config.source.rate_hz, skip_warm_up=True
    )
    decoder, latest = LineDecoder(), dict[str, "Prediction"]()
    for arrival in read_port(config.source, StopEvent(after_s=seconds)):
        if isinstance(arrival, PortClosed):
            raise SourceError(arrival.reason)
        if isinstance(arrival, Chunk):
            for frame in decoder.feed(arrival.data):
                step = nose.process(frame, arrival.arrival_ms or monotonic_ms())
                latest |= {prediction.model: prediction for prediction in step.predictions}
    return list(_sentences(latest))


def _sentences(latest: dict[str, Prediction]) -> Iterator[str]:
    for prediction in latest.values():
        likely = ", ".join(f"{label} ({share:.0%})" for label, share in prediction.top[:3])
        unknown = prediction.foreign_board or prediction.label is not None or not likely
        yield prediction_sentence(prediction) + ("" if unknown else f" Likeliest: {likely}.")
        if prediction.reason is not None and not prediction.foreign_board:
            yield f"  {prediction.reason}."
    if any(prediction.foreign_board for prediction in latest.values()):
        yield UNKNOWN_BOARD
    if not latest:
        yield "No model has said anything yet: it needs more readings."
