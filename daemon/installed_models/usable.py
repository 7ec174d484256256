"""Daemon: opens all of a loaded bundle, and runs it as the service does.

Knows no store and no child process. The service does this with an installed model at its start, the
trial of a new one (`daemon.installed_models.trial`) in a child.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from calibration.rig_reference import RigReference
from hardware.channels import CHANNEL_NAMES
from hardware.frames import SensorFrame
from hardware.readings import range_quality
from models.bundle import BundleMismatchError
from models.manifest import BundleError
from models.nose import Nose

if TYPE_CHECKING:
    from models.bundle import Bundle

_READINGS = 150
"""Processed once: more than a window of the shipped models and their longest lag."""


def check_usable(bundle: Bundle) -> None:
    """Open what a loaded bundle opens later, and let a nose process readings with it.

    Raises
    ------
    BundleError: something in it cannot be used.
    """
    manifest = bundle.manifest
    try:
        _ = bundle.training_hashes, bundle.space
        RigReference.from_arrays(manifest.labels, bundle.arrays)
        rate_hz = manifest.preprocessing.rate_hz
        nose = Nose([bundle], rate_hz=rate_hz, assume_exposed=True)
        for number in range(_READINGS):
            values = np.full(len(CHANNEL_NAMES), 100.0 + number % 7, dtype=np.float32)
            frame = SensorFrame(number, None, values, range_quality(values))
            nose.process(frame, t_ms=round(number * 1000.0 / rate_hz))
    except BundleError:
        raise
    except Exception as error:  # whatever the content of a bundle makes numpy and the rest raise
        raise BundleMismatchError(
            f"{bundle.folder} cannot be used: its files are those of its manifest, but their "
            f"content is not that of a model ({type(error).__name__}: {error}). Export it again."
        ) from error
