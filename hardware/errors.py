"""Ground floor: the base of every error that scentd raises on purpose.

Each folder derives its own types from these. A message is one paragraph: what was expected, what
was found, what to do. `exit_code` is what a command line returns.
"""

from __future__ import annotations


class ScentdError(Exception):
    """Something failed that a user can repair; the message says how."""

    exit_code = 1


class UsageError(ScentdError):
    """The command was called in a way that cannot work: wrong option, label, or file kind."""

    exit_code = 2
