"""Raw readings are sent for as long as they were asked for, and no longer."""

from __future__ import annotations

from daemon.service.samples import Samples


def test_repeated_requests_extend_and_never_shorten() -> None:
    now_s = 0.0
    samples = Samples(lambda: now_s)
    assert not samples.wanted()
    assert samples.extend(seconds=60) == {"seconds": 60}
    now_s = 30.0
    assert samples.extend(seconds=10) == {"seconds": 30}
    assert samples.extend(seconds=60) == {"seconds": 60}
    now_s = 89.9
    assert samples.wanted()
    now_s = 90.0
    assert not samples.wanted()
