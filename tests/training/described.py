"""Six substances with element counts, descriptions and recordings, as the published data has."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from tests.training.tiny import periodic
from training.config import CrossModalConfig
from training.data.dataset import Dataset

LABELS = ("almond", "banana", "cloves", "garlic", "lemon", "mint")
ELEMENTS = {
    "almond": (900, 1500, 20, 0), "banana": (400, 800, 300, 0), "cloves": (700, 800, 150, 0),
    "garlic": (50, 90, 4, 800), "lemon": (600, 990, 5, 0), "mint": (500, 900, 60, 1),
}  # fmt: skip
TEXTS = {
    "almond": "Almond is sweet and nutty with a buttery scent. In gas sensor data it is mild.",
    "banana": "Banana is sweet, fruity and tropical, with a floral scent.",
    "cloves": "Cloves are warm, spicy, sweet and medicinal. Sensors see sharp signals.",
    "garlic": "Garlic is pungent, sulphurous and savory; its scent stays.",
    "lemon": "Lemon is a citrus fruit, fresh, tangy and fruity.",
    "mint": "Mint is herbal, fresh and camphoraceous, sweet and cool.",
}
ALL_ON = CrossModalConfig(
    gcms=0.5, similarity=0.4, signed=0.5, masked=0.4, pretrain=0.1, balancer=True, descriptors=0.5
)
"""Every cross-modal switch."""


def recordings(folder: Path | None = None, per_label: int = 3) -> Dataset:
    """Recordings of the substances, as if read from `folder`."""
    periods_s = {label: 5.0 + 3 * place for place, label in enumerate(LABELS)}
    return periodic(periods_s, per_label=per_label, folder=folder)


def described_recordings(top: Path) -> Dataset:
    """Recordings as if read from TOP/base, with the tables of the substances in TOP."""
    with (top / "gcms_elements.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["food_name", "C", "H", "O", "S"])
        writer.writerows([name, *counts] for name, counts in ELEMENTS.items())
    (top / "text_description.json").write_text(json.dumps(TEXTS))
    (top / "base").mkdir()
    return recordings(top / "base")
