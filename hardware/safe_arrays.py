"""Ground floor: arrays from outside (.npz), read safely: arrays of numbers or text, or one error.

May import numpy. Never unpickles.
"""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS_BYTES = 256 << 20
"""Most that the arrays of a file may take together."""


def read_arrays(data: bytes) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file by their names.

    Raises
    ------
    ValueError: it is none, is damaged or too large, or holds Python objects.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(item.file_size for item in archive.infolist())
        if size <= ARRAYS_BYTES:
            with np.load(io.BytesIO(data), allow_pickle=False) as stored:
                return {name: np.asarray(stored[name]) for name in stored.files}
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types at damaged files
        raise ValueError(
            f"it is no readable .npz file ({type(error).__name__}: {error})"
        ) from error
    raise ValueError(f"its arrays take {size} bytes, and at most {ARRAYS_BYTES} are read")
