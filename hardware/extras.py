"""Ground floor: packages that only some commands need, and the extras of scentd that bring them.

May import the standard library and hardware.errors alone.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from hardware.errors import ScentdError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ExtraNotInstalledError(ScentdError):
    """The packages of an extra are not installed."""


def require_extra(what: str, extra: str, packages: Sequence[str]) -> None:
    """Check that the packages of an extra can be imported, without importing them.

    Parameters
    ----------
    what: needs them: "The page".
    extra: of scentd, as pip names it: "web".
    packages: by the names under which they are imported.

    Raises
    ------
    ExtraNotInstalledError: naming those that are missing, and the command that installs them.
    """
    missing = [name for name in packages if find_spec(name) is None]
    if not missing:
        return
    are = "are not installed, because a rig does not need them. Install them"
    if len(missing) == 1:
        are = "is not installed, because a rig does not need it. Install it"
    raise ExtraNotInstalledError(
        f"{what} needs {' and '.join(missing)}, which {are}: pip install 'scentd[{extra}]'."
    )
