"""Ground floor: the Hugging Face hub: addresses, and the errors of its client in plain sentences.

May import the standard library, hardware.errors and hardware.extras, and huggingface_hub inside
functions alone: a rig has it only where the extra `hub` was installed. The client itself honours
HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and a proxy.
"""

from __future__ import annotations

import errno
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.errors import ScentdError, UsageError
from hardware.extras import require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "hf:"
"""Begins an address on the hub, where a path of a file may stand as well."""

LIBRARY = "scentd"
"""The name under which the client calls the hub, and under which the hub lists our models."""

LOG_IN = "log in with an account that may (hf auth login), or set HF_TOKEN"

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_ADDRESS = re.compile(rf"({_PART}/{_PART})(?:@([A-Za-z0-9][A-Za-z0-9._/-]{{0,127}}))?")

_UNAUTHORISED, _FORBIDDEN = 401, 403


class HubError(ScentdError):
    """The hub did not give, or did not take, what was asked; the message says why."""


@dataclass(frozen=True, slots=True)
class HubAddress:
    """A repository on the hub.

    Attributes
    ----------
    repository: OWNER/NAME.
    revision: a commit, tag or branch; None for the newest commit of the main branch.
    """

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> HubAddress:
        """Return the address that a text states.

        Raises
        ------
        UsageError: it is none.
        """
        found = _ADDRESS.fullmatch(text.removeprefix(PREFIX))
        if not text.startswith(PREFIX) or found is None or ".." in text or "--" in found[1]:
            raise UsageError(
                f"Expected a repository of the hub as {PREFIX}OWNER/NAME, or "
                f"{PREFIX}OWNER/NAME@REVISION with a commit, tag or branch, and {text!r} came."
            )
        return cls(found[1], found[2])

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{PREFIX}{self.repository}{revision}"


def require_hub_client(what: str) -> None:
    """Raise `ExtraNotInstalledError` if the hub's client is not installed."""
    require_extra(what, "hub", ("huggingface_hub",))


@contextmanager
def explained_hub_errors(wanted: str, *, again: str, unknown: str) -> Iterator[None]:
    """Turn the errors of the hub's client in the block into ours.

    Parameters
    ----------
    wanted: what was asked of the hub: "the model hf:me/mine".
    again: a sentence that says what to do after the cause is removed.
    unknown: a sentence for a repository that is not there, or not for this user.

    Raises
    ------
    UsageError: the hub has no such repository or revision.
    HubError: everything else that the hub, the network or a full disk refused.
    """
    from huggingface_hub import errors  # noqa: PLC0415 - of the extra `hub`

    # The HTTP client's own base class: of httpx in 1.x of the hub's client, of httpx2 in 2.x.
    transport: type[BaseException] = errors.HfHubHTTPError.__mro__[1]
    try:
        yield
    except errors.GatedRepoError as error:
        raise UsageError(
            f"Expected {wanted}, which the hub gives only to users whom its owner admits. Ask for "
            f"access on its page, and {LOG_IN}."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"Expected {wanted}, the hub has none of that name, or not for everyone. {unknown}"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"Expected {wanted}, the repository has no such revision. Name a commit, tag or branch "
            "that its page lists, or leave it out for the newest commit."
        ) from error
    except errors.LocalTokenNotFoundError as error:
        raise HubError(f"The hub asks who you are for {wanted}: {LOG_IN}.") from error
    except errors.HfHubHTTPError as error:
        raise HubError(_refusal(error, wanted, again)) from error
    except (transport, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled) as error:
        raise HubError(
            f"Expected an answer of the hub about {wanted}, got none ({type(error).__name__}: "
            f"{_first_line(error)}). Check the network, a proxy, HF_HUB_OFFLINE and the address of "
            f"the hub (HF_ENDPOINT, or --endpoint where there is one). {again}"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise HubError(f"The disk became full. Make room. {again}") from error
        if error.errno is not None:
            raise
        # The client's own errors: a file that came shorter or longer than the hub announced it.
        raise HubError(
            f"{wanted[0].upper()}{wanted[1:]} did not come whole: {_first_line(error)}. {again}"
        ) from error


def _refusal(error: BaseException, wanted: str, again: str) -> str:
    """Return what the hub's answer with an error means."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (_UNAUTHORISED, _FORBIDDEN):
        return (
            f"The hub refused {wanted} ({_first_line(error)}): the token is wrong, has ended, or "
            f"may not do this. To go on, {LOG_IN}."
        )
    return f"Expected {wanted}, the hub answered: {_first_line(error)}. {again}"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "").rstrip(".")
