"""Says which packages the wheel holds: one, `scentd`, with the folders of the checkout in `app`.

Everything else is declared in pyproject.toml, which cannot give packages another name. The wheel
leaves some model bundles out, and pins them: see `daemon.installed_models.releases`.
"""

import json
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOLDERS = ("hardware", "models", "calibration", "daemon", "training")
BUNDLES = Path("models", "bundles")


class BuildWithPins(build_py):
    """Also writes the hashes of all bundles of the checkout, by name."""

    def run(self) -> None:
        """Build, then write the file."""
        super().run()
        if self.editable_mode:
            return  # the bundles themselves are there
        pins = {
            path.parent.name: {
                field: re.search(rf"^{key}: (\S+)$", path.read_text("utf-8"), re.MULTILINE)[1]
                for field, key in (("version", "version"), ("sha256", "manifest_sha256"))
            }
            for path in sorted(BUNDLES.glob("*/manifest.yaml"))
        }
        folder = Path(self.build_lib, "scentd", "app", BUNDLES)
        folder.joinpath("releases.json").write_text(json.dumps(pins, indent=2), encoding="utf-8")


setup(
    packages=[
        "scentd",
        "scentd.app.systemd",
        *(f"scentd.app.{name}" for name in find_packages(include=[f"{top}*" for top in FOLDERS])),
    ],
    package_dir={"scentd": "scentd", "scentd.app": "."},
    cmdclass={"build_py": BuildWithPins},
)
