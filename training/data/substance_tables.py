"""training/: what is known of the substances, from tables that lie beside the data.

Element counts by GC-MS, odour descriptions, odour descriptors. numpy and the standard
library; scikit-learn only where a text is encoded. Never reads a sensor's readings.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from training.config import CrossModalConfig
    from training.data.dataset import Dataset

TEXT_FILE = "text_description.json"
DESCRIPTORS_FILE = "descriptors.csv"
_USUAL_FILES = {"gcms_file": "gcms_elements.csv", "text_file": TEXT_FILE}
"""By the option of a configuration that names another one."""

TEXT_WIDTH = 32
"""Dimensions of an encoded text, fewer where there are fewer texts."""
MIN_TEXTS = 3

_NAMED = 5
"""Substances that an error names at most."""

_NOT_OF_ODOUR = re.compile(r"\b(sensors?|sensing|signals?|classification)\b", re.IGNORECASE)
"""Sentences about sensors describe our input, not the odour."""


class SubstanceTableError(UsageError):
    """A table about the substances is missing or cannot be read; the message names it."""


@dataclass(frozen=True, slots=True, eq=False)
class SubstanceTable:
    """What one source says of the substances, in numbers.

    Attributes
    ----------
    names: of the columns; empty where they mean nothing by themselves.
    values: float32[labels, columns]; rows of unknown substances are 0.
    known: bool[labels], which substances have a row.
    """

    names: tuple[str, ...]
    values: NDArray[np.float32]
    known: NDArray[np.bool_]

    def restrict_to(self, keep: NDArray[np.bool_]) -> SubstanceTable:
        """Return the table in which only substances of `keep` bool[labels] are known."""
        known = self.known & keep
        return SubstanceTable(self.names, self.values * known[:, None], known)

    def standardise(self, reference: NDArray[np.bool_]) -> SubstanceTable:
        """Scale every column to mean 0, deviation 1 over the known substances of `reference`."""
        rows = self.values[self.known & reference]
        spread = rows.std(axis=0)
        spread[spread == 0] = 1.0  # a constant column
        values = (self.values - rows.mean(axis=0)) / spread
        return SubstanceTable(self.names, values.astype(np.float32), self.known)


@dataclass(frozen=True, slots=True, eq=False)
class SubstanceTables:
    """What is known of the substances of a data set, one table per modality.

    Attributes
    ----------
    elements: ln(1 + count) per chemical element, not standardised; None where not needed.
    texts: odour descriptions, empty where there is none; None where not needed.
    descriptors: 1 where a descriptor fits; None where not needed.
    """

    elements: SubstanceTable | None = None
    texts: tuple[str, ...] | None = None
    descriptors: SubstanceTable | None = None

    @property
    def sha256(self) -> str:
        """Hash of all tables: they decide the result of a training."""
        digest = hashlib.sha256(json.dumps(self.texts).encode())
        for table in (self.elements, self.descriptors):
            if table is not None:
                digest.update(json.dumps(table.names).encode())
                digest.update(table.values.tobytes() + table.known.tobytes())
        return digest.hexdigest()


def read_substance_tables(config: CrossModalConfig | None, data: Dataset) -> SubstanceTables:
    """Read the tables that a configuration's switches need; None needs none.

    Signed pairs need the descriptions; they use element counts too where there are any.

    Raises
    ------
    SubstanceTableError: a table is missing, cannot be read, or holds none of the substances.
    """
    if config is None:
        return SubstanceTables()
    elements = texts = descriptors = None
    needed = config.gcms or config.similarity or config.masked or config.pretrain
    if needed or (config.signed and _find(config, "gcms_file", data.folder)):
        elements = read_element_counts(_require(config, "gcms_file", data.folder), data.labels)
    if config.signed:
        texts = read_descriptions(_require(config, "text_file", data.folder), data.labels)
    if config.signed or config.descriptors:
        descriptors = read_descriptors(data.labels, config)
    return SubstanceTables(elements, texts, descriptors)


def read_element_counts(path: Path, labels: Sequence[str]) -> SubstanceTable:
    """Read ln(1 + count) of the elements of `labels` from a CSV: name, then a column per element.

    Counts span six orders of magnitude, and trace elements are 0 for most substances.
    """
    header, rows = _csv_rows(path)
    known = np.array([label in rows for label in labels])
    _check_any(known, path, labels)
    absent = ["0"] * (len(header) - 1)
    try:
        values = np.array([[float(cell) for cell in rows.get(label, absent)] for label in labels])
    except ValueError as error:
        raise SubstanceTableError(f"{path} must hold numbers after the name: {error}.") from error
    if values.min() < 0 or not np.isfinite(values).all():
        raise SubstanceTableError(f"{path} must hold counts, finite and not negative.")
    return SubstanceTable(tuple(header[1:]), np.log1p(values).astype(np.float32), known)


def read_descriptions(path: Path, labels: Sequence[str]) -> tuple[str, ...]:
    """Read the odour description of each label from a JSON object; empty where it has none.

    Sentences about sensors and the substance's own name are removed: windows are matched with an
    odour, not with a name.
    """
    raw = _json_object(path)
    texts = tuple(_odour_part(str(raw.get(label, "")), label) for label in labels)
    _check_any(np.array([bool(text) for text in texts]), path, labels)
    return texts


def read_descriptors(
    labels: Sequence[str], config: CrossModalConfig | None = None
) -> SubstanceTable:
    """Read the odour descriptors of `labels`, from the configuration's table if it names one.

    The table is a CSV of substance and space-separated descriptors. The shipped one was
    written from the published descriptions and from what the odours are commonly called.
    """
    shipped = Path(str(resources.files("training.data"))) / DESCRIPTORS_FILE
    path = Path(config.descriptors_file) if config and config.descriptors_file else shipped
    _, rows = _csv_rows(path)
    words = {name: set(cells[0].split()) for name, cells in rows.items()}
    names = tuple(sorted(set().union(*words.values())))
    known = np.array([label in words for label in labels])
    _check_any(
        known,
        path,
        labels,
        " Describe your own with cross_modal.descriptors_file, a CSV of substance and "
        "space-separated descriptors, or set cross_modal.descriptors to 0.",
    )
    values = [[name in words.get(label, ()) for name in names] for label in labels]
    return SubstanceTable(names, np.array(values, dtype=np.float32), known)


class TextEncoder:
    """Texts to vectors: TF-IDF over words and over character n-grams, each reduced by an SVD.

    Latent semantic analysis (Deerwester et al., JASIS 41, 1990): no language model, nothing
    to download, and a vocabulary from the given texts alone.

    Parameters
    ----------
    texts: at least three texts to learn vocabulary, weights and directions from.
    seed: of the randomised SVD.
    """

    def __init__(self, texts: Sequence[str], seed: int = 0) -> None:
        from sklearn.decomposition import TruncatedSVD  # noqa: PLC0415 - half a second
        from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
        from sklearn.pipeline import make_pipeline  # noqa: PLC0415

        if len(texts) < MIN_TEXTS:
            raise SubstanceTableError(
                f"Matching with descriptions needs at least {MIN_TEXTS} described substances, "
                f"got {len(texts)}. Describe more of them in {TEXT_FILE}."
            )
        kinds = {
            "words": {"analyzer": "word", "stop_words": "english", "sublinear_tf": True},
            "characters": {"analyzer": "char_wb", "ngram_range": (3, 5), "sublinear_tf": True},
        }
        self._pipelines = {
            name: make_pipeline(
                TfidfVectorizer(**options),
                TruncatedSVD(min(TEXT_WIDTH, len(texts) - 1), random_state=seed),
            ).fit(list(texts))
            for name, options in kinds.items()
        }

    def __call__(self, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Return float32[texts, columns] of each view, rows of length 1 (0 where nothing fits)."""
        return {name: _unit(line.transform(list(texts))) for name, line in self._pipelines.items()}


def cosine_similarities(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the cosine similarities float32[n, n] of the rows of `values` float32[n, columns]."""
    unit = _unit(values)
    similar: NDArray[np.float32] = unit @ unit.T
    return similar


def number_distinct_rows(values: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return a number int[n] for each row of `values` float32[n, columns], equal for equal rows."""
    _, number = np.unique(values, axis=0, return_inverse=True)
    result: NDArray[np.int64] = number.reshape(-1).astype(np.int64)
    return result


def _unit(values: NDArray[Any]) -> NDArray[np.float32]:
    length = np.linalg.norm(values, axis=1, keepdims=True)
    unit: NDArray[np.float32] = (values / np.where(length > 0, length, 1)).astype(np.float32)
    return unit


def _odour_part(text: str, label: str) -> str:
    sentences = re.split(r"(?<=[.!?])\s+", text)
    about = " ".join(s for s in sentences if not _NOT_OF_ODOUR.search(s)) or text
    own = "|".join(re.escape(word.rstrip("s")) for word in label.lower().split("_"))
    return re.sub(rf"\b(?:{own})s?\b", "", about.lower()).strip()


def _find(config: CrossModalConfig, option: str, folder: Path | None) -> Path | None:
    """Return the file that `option` names, else the usual one in the data folder or above it."""
    if named := getattr(config, option):
        return Path(named)
    if folder is None:
        return None
    places = (folder, *folder.resolve().parents[:2])
    paths = (place / _USUAL_FILES[option] for place in places)
    return next((path for path in paths if path.is_file()), None)


def _require(config: CrossModalConfig, option: str, folder: Path | None) -> Path:
    path = _find(config, option, folder)
    if path is None:
        raise SubstanceTableError(
            f"Expected {_USUAL_FILES[option]} in the data folder {folder or ''} or in one of the "
            f"two above it, found none. Put it there, name it with cross_modal.{option}, or switch "
            "off what needs it."
        )
    return path


def _csv_rows(path: Path) -> tuple[list[str], Mapping[str, list[str]]]:
    """Return the header, and the other cells of each row by its first."""
    rows = [row for row in csv.reader(io.StringIO(_read(path))) if row]
    if len(rows) < 2 or any(len(row) != len(rows[0]) or len(row) < 2 for row in rows):  # noqa: PLR2004
        raise SubstanceTableError(
            f"{path} must be a CSV with a header, a name in its first column and as many cells in "
            "every row; its rows differ or are missing."
        )
    return rows[0], {row[0].strip(): row[1:] for row in rows[1:]}


def _json_object(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(_read(path))
    except ValueError as error:
        raise SubstanceTableError(f"{path} is not JSON: {error}.") from error
    if not isinstance(raw, dict):
        raise SubstanceTableError(
            f"{path} must hold one object, name to text; got {type(raw).__name__}."
        )
    return raw


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SubstanceTableError(f"{path} cannot be read: {error.strerror or error}.") from error


def _check_any(
    known: NDArray[np.bool_], path: Path, labels: Sequence[str], advice: str = ""
) -> None:
    if not known.any():
        named = ", ".join(labels[:_NAMED]) + (", ..." if len(labels) > _NAMED else "")
        raise SubstanceTableError(
            f"{path} holds none of the substances {named}. Its names must be those of the data's "
            f"folders.{advice}"
        )
