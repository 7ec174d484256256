"""A USB bus with serial adapters as one process sees it: /dev and /sys/class/tty.

The process runs in a mount namespace of its own where these two are folders of the test. The
adapters' ports are real pseudo-terminals; their identities are files, as in sysfs.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_ENTER = """
set -e
for name in null zero full random urandom tty; do
    touch "$0/dev/$name"
    mount --bind "/dev/$name" "$0/dev/$name"
done
mkdir -p "$0/dev/pts" "$0/dev/shm"
mount --bind /dev/pts "$0/dev/pts"
mount -t tmpfs tmpfs "$0/dev/shm"
mount --rbind "$0/dev" /dev
mount --bind "$0/tty" /sys/class/tty
exec "$@"
"""


class UsbBus:
    """What is plugged in, below `folder`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("dev", "tty", "devices", "bus/usb-serial"):
            (folder / name).mkdir(parents=True)

    @property
    def seen_by(self) -> tuple[str, ...]:
        """The prefix of a command that is to see this bus and no other."""
        return ("unshare", "-m", "sh", "-c", _ENTER, str(self._folder))

    def plug(self, name: str, ids: str, terminal: str) -> None:
        """Add an adapter as /dev/NAME; `ids` as vendor:product:serial."""
        vendor, product, serial_number = ids.split(":")
        device = self._folder / "devices" / name
        port = device / "1-1:1.0" / name
        port.mkdir(parents=True)
        for file, text in (
            ("idVendor", vendor),
            ("idProduct", product),
            ("serial", serial_number),
            ("bNumInterfaces", " 1"),
        ):
            (device / file).write_text(f"{text}\n", "ascii")
        (port / "subsystem").symlink_to(self._folder / "bus" / "usb-serial")
        (self._folder / "tty" / name).mkdir()
        (self._folder / "tty" / name / "device").symlink_to(port)
        (self._folder / "dev" / name).symlink_to(terminal)

    def unplug(self, name: str) -> None:
        """Remove an adapter."""
        (self._folder / "dev" / name).unlink()
        shutil.rmtree(self._folder / "tty" / name)
        shutil.rmtree(self._folder / "devices" / name)
