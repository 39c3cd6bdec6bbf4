"""The arithmetic of the graph timer, with a device that is a counter."""

import gc

import pytest
import torch

from benchmarks.timing import GraphTimer


class Device:
    """Time passes in replays: `ms` for each call that was captured."""

    def __init__(self, monkeypatch, ms: float):
        self.now = 0.0
        self.calls = 0
        self.capturing = None
        device = self

        class Graph:
            def __init__(self):
                self.calls = 0

            def capture_begin(self):
                assert not gc.isenabled()
                device.capturing = self

            def capture_end(self):
                device.capturing = None

            def replay(self):
                device.now += self.calls * ms

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.time = device.now

            def elapsed_time(self, end):
                return end.time - self.time

        monkeypatch.setattr(torch.cuda, 'CUDAGraph', Graph)
        monkeypatch.setattr(torch.cuda, 'Event', Event)
        monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)

    def call(self):
        self.calls += 1
        if self.capturing is not None:
            self.capturing.calls += 1


@pytest.mark.parametrize('ms', [0.001, 0.03, 5.0])
@pytest.mark.parametrize('calls', [1, 3, 83])
def test_a_sample_is_the_time_of_one_call(monkeypatch, ms, calls):
    device = Device(monkeypatch, ms)
    found = GraphTimer()(lambda: [device.call() for _ in range(calls)], calls)
    assert found.p50 == pytest.approx(ms)
    assert found.p20 == pytest.approx(ms)
    # A first run, a probe and a capture of at most 512 calls, or one round if longer.
    assert device.calls <= calls + 2 * max(512, calls + 8)
    assert gc.isenabled()


def test_an_error_while_capturing_is_the_one_that_shows(monkeypatch):
    device = Device(monkeypatch, 1.0)

    def run():
        if device.capturing is not None:
            raise ValueError('not allowed in a capture')

    with pytest.raises(ValueError, match='not allowed in a capture'):
        GraphTimer()(run, 1)
    assert device.capturing is None
    assert gc.isenabled()
