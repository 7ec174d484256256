"""The child process that runs the real service."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.sandbox.service_process import ServiceProcess, ServiceProcessError


def test_a_service_that_cannot_start_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    settings = {"rig_id": "demo", "source": {"port": "/dev/null0"}, "models": ["no-such-model"]}
    service = ServiceProcess(tmp_path, settings)
    with pytest.raises(ServiceProcessError, match="no-such-model"), service:
        pass
