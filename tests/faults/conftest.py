"""Fixtures of the fault tests: those of the daemon's tests, and what a rig says."""

from __future__ import annotations

from tests.daemon.conftest import absent_broker, board, broker, toy_mixtures, toy_substances

__all__ = ["absent_broker", "board", "broker", "toy_mixtures", "toy_substances"]
