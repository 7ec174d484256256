"""The file of a cross-validation's held-out outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.training.outputs import held_out_of, random_streams
from training.evaluation.held_out import HeldOutError, concatenate_held_out, read_held_out


def test_held_out_outputs_are_read_as_written(tmp_path: Path) -> None:
    parts = [held_out_of(random_streams(5, seed=seed)) for seed in (1, 2)]
    written = concatenate_held_out(parts)
    written.save(tmp_path / "held_out.npz")
    read = read_held_out(tmp_path / "held_out.npz")
    assert read.names == written.names
    assert read.outputs.owner.tolist() == written.outputs.owner.tolist()
    assert read.outputs.owner.max() == 9
    assert read.streams is not None
    assert written.streams is not None
    assert read.streams.shares == written.streams.shares
    np.testing.assert_array_equal(read.streams.truth, written.streams.truth)
    np.testing.assert_array_equal(read.streams.logits, written.streams.logits)


def test_a_missing_or_other_file_says_to_run_crossval(tmp_path: Path) -> None:
    path = tmp_path / "held_out.npz"
    with pytest.raises(HeldOutError, match="crossval"):
        read_held_out(path)
    np.savez(path, logits=np.zeros(3))
    with pytest.raises(HeldOutError, match="crossval"):
        read_held_out(path)
