"""The physical limit, measured: a copy and a three-stream kernel of the same bytes."""

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def three_stream_kernel(p_x, p_dy, p_dx, numel, BLOCK: tl.constexpr):
    """dx = x + dy: two streams in, one out, the traffic of a norm's backward pass."""
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    m = o < numel
    x = tl.load(p_x + o, mask=m).to(tl.float32)
    dy = tl.load(p_dy + o, mask=m).to(tl.float32)
    tl.store(p_dx + o, x + dy, mask=m)


def three_stream(x: Tensor, dy: Tensor, dx: Tensor) -> None:
    """Launches the kernel over flat tensors of one dtype."""
    block = 4096
    grid = (triton.cdiv(dx.numel(), block),)
    three_stream_kernel[grid](x, dy, dx, dx.numel(), BLOCK=block, num_warps=8)


def copy(x: Tensor, y: Tensor) -> None:
    """Device-to-device copy, the driver's own."""
    y.copy_(x)


LIMITS: dict[str, tuple[Callable[..., None], int]] = {
    'copy': (copy, 2),
    'three_stream': (three_stream, 3),
}


def buffers(
    name: str, nbytes: int, dtype: torch.dtype, device: torch.device | str
) -> tuple[Tensor, ...]:
    """Flat tensors that together make `nbytes`, up to 16 bytes a tensor."""
    streams = LIMITS[name][1]
    per_tensor = -(-nbytes // (streams * 16)) * 16 // dtype.itemsize
    inputs = [
        torch.randn(per_tensor, device=device, dtype=torch.float32).to(dtype)
        for _ in range(streams - 1)
    ]
    return (*inputs, torch.full_like(inputs[0], float('nan')))


def run(name: str, sets: Sequence[Sequence[tuple[Tensor, ...]]]) -> None:
    """Moves every set once; a set has one entry per launch (forward, backward)."""
    launch = LIMITS[name][0]
    for entries in sets:
        for entry in entries:
            launch(*entry)


def wrong(name: str, entry: tuple[Tensor, ...]) -> str | None:
    """What is wrong with the output of a launch, if anything."""
    *inputs, output = entry
    expected = inputs[0] if name == 'copy' else inputs[0] + inputs[1]
    # One rounding of the sum may differ by an ulp; unwritten elements are NaN.
    if torch.allclose(output.float(), expected.float(), rtol=1e-2, atol=1e-2):
        return None
    return f'{name} wrote a wrong result'
