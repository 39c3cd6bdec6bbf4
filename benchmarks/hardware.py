"""The device that times are modelled for: assumptions, none of them measured here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Hardware:
    """Rates in bytes or cycles a second, latencies in seconds, sizes of one SM.

    `kept` is how much of its L2 a map finds again. `launch` is the first launch of an
    operation, `gap` one that waits for the launch before. `pipes` are warp instructions
    a cycle and SM, `latency` seconds from an instruction to its result.
    """

    name: str
    sms: int
    clock: float
    dram: float
    l2: float
    kept: float
    launch: float
    gap: float
    dram_latency: float
    l2_latency: float
    latency: dict[str, float]
    pipes: dict[str, float]
    registers: int
    threads: int
    shared: int


_CLOCK = 1.7e9

H100 = Hardware(
    name='H100',
    sms=132,
    clock=_CLOCK,
    dram=3.0e12,
    l2=5.5e12,
    kept=30e6,
    launch=2.5e-6,
    gap=1.0e-6,
    dram_latency=0.7e-6,
    l2_latency=0.3e-6,
    latency={
        'float': 4 / _CLOCK,
        'integer': 4 / _CLOCK,
        'convert': 6 / _CLOCK,
        'special': 20 / _CLOCK,
        'shuffle': 24 / _CLOCK,
        'shared': 30 / _CLOCK,
    },
    # NVIDIA's table of arithmetic throughput for compute capability 9.0.
    pipes={
        'float': 4.0,
        'integer': 2.0,
        'convert': 2.0,
        'special': 0.5,
        'shuffle': 1.0,
        'lsu': 1.0,
    },
    registers=65536,
    threads=2048,
    shared=228 * 1024,
)
