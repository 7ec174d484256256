"""Daemon: clips: the readings around every announced exposure, kept within bounds.

Each is a recording of its own beside the continuous one (`clip-UTC-SEQ.csv`, UTC and SEQ of the
first announcement of the exposure), so that clips can be labelled, exported and trained on as well.
They are written in another thread: a disk may take a second, and the pipeline must not wait.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from daemon.mqtt.payloads import format_utc
from daemon.system.logs import get_logger
from hardware.files import remove, write_atomically
from hardware.recording_labels import labels_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.config.settings import RecordingConfig
    from daemon.review.announcements import Announcement

_NAME = re.compile(r"clip-(\d{8}T\d{6}Z)-\d+\.csv")
MEGABYTE = 1_000_000
DAY_S = 86_400.0


def clip_name(first: Announcement) -> str:
    """Return the name of the clip of an exposure, given its first announcement."""
    utc = re.sub(r"[-:]|\.\d+", "", format_utc(first.unix_ms))
    return f"clip-{utc}-{first.seq}.csv"


@dataclass(frozen=True, slots=True)
class _Clip:
    path: Path
    utc: str
    size: int
    labelled: bool


class Clips:
    """The clips of a rig.

    Parameters
    ----------
    folder: of the recordings.
    write: as of `AnnouncementLog`.
    """

    def __init__(
        self,
        folder: Path,
        write: Callable[[Callable[[], None]], object] = lambda task: task(),
    ) -> None:
        self._folder = folder
        self._to_disk = write
        self._config: RecordingConfig | None = None
        self._failing = False
        self._log = get_logger("clips")

    def configure(self, config: RecordingConfig, *, wanted: bool) -> None:
        """Keep clips from now on within these bounds, or keep no more of them."""
        self._config = config if wanted else None

    @property
    def wanted(self) -> bool:
        """Whether clips are kept."""
        return self._config is not None

    def path(self, name: str) -> Path | None:
        """Return the file of a clip; None where it is not kept, or not any more."""
        path = self._folder / name
        return path if path.is_file() and not path.is_symlink() else None

    def keep(self, name: str, content: bytes) -> None:
        """Write a clip, then remove what is beyond the bounds; return at once."""
        if self._config is not None:
            self._to_disk(partial(self._write, self._folder / name, content, self._config))

    def _write(self, path: Path, content: bytes, config: RecordingConfig) -> None:
        try:
            write_atomically(path, content)
            self._remove_oldest(config)
            self._failing = False
        except OSError as error:
            if not self._failing:
                self._log.warning(f"Clips are not kept: {error}. Recognition continues.")
            self._failing = True

    def _remove_oldest(self, config: RecordingConfig) -> None:
        """Remove clips that are too old, then the oldest beyond the bounds, labelled ones last."""
        clips = self._listed()
        oldest = time.strftime(
            "%Y%m%dT%H%M%SZ", time.gmtime(max(0.0, time.time() - config.clips_days * DAY_S))
        )
        kept = sorted(clips, key=lambda clip: (clip.labelled, clip.utc, clip.path.name))
        expired = [clip for clip in kept if clip.utc < oldest]
        kept = [clip for clip in kept if clip.utc >= oldest]
        size = sum(clip.size for clip in kept)
        while len(kept) > 1 and (
            len(kept) > config.clips_most or size > config.clips_mb * MEGABYTE
        ):
            size -= kept[0].size
            expired.append(kept.pop(0))
        for clip in expired:
            remove(clip.path)
            remove(labels_path(clip.path))

    def _listed(self) -> list[_Clip]:
        found = []
        for path in self._folder.glob("clip-*.csv"):
            match = _NAME.fullmatch(path.name)
            if match is not None:
                labelled = labels_path(path).exists()
                found.append(_Clip(path, match[1], path.lstat().st_size, labelled))
        return found
