"""Compiles the kernels of the detector's shapes without a GPU; prints JSON lines.

    python -m tests.ops.compile_kernels 90 bf16

Run without TRITON_INTERPRET. Each line has the kernel, its shape and layout, registers,
bytes of stack and local memory (spills), and widths of global loads and stores.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

import torch

from benchmarks.shapes import SHAPES, Shape
from gn_det.ops.triton_launch import (
    BwdPlan,
    FwdPlan,
    Launch,
    LaunchConfig,
    plan_bwd,
    plan_fwd,
)
from tests.ptx.compile import Compiled, compile_kernel

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


def plans(shape: Shape, dtype: torch.dtype, channels_last: bool) -> Iterator:
    """The forward and backward plan of one row of the shape table, as trained."""
    config = LaunchConfig.for_shape(
        shape.N,
        shape.C,
        shape.H * shape.W,
        shape.G,
        itemsize=dtype.itemsize,
        channels_last=channels_last,
    )
    residual = shape.kind == 'residual_relu'
    needs = {'need_dx': True, 'need_dweight': True, 'need_dbias': True}
    # SiLU takes the place of the ReLU in models with it.
    for activation in (None,) if shape.kind == 'plain' else ('relu', 'silu'):
        fused = {'weight': True, 'bias': True, 'activation': activation}
        yield plan_fwd(config, **fused, residual=residual)
        yield plan_bwd(config, **fused, kept=residual, **needs)


def launches(plan: FwdPlan | BwdPlan) -> Iterator[Launch]:
    """The launches of a plan in the order in which they run."""
    for name in ('stats', 'apply', 'sums', 'dx', 'dwdb'):
        launch = getattr(plan, name, None)
        if launch is not None:
            yield launch


def signature(
    launch: Launch, x: torch.dtype, weight: torch.dtype, bias: torch.dtype
) -> dict[str, str]:
    """Argument types by name, as Triton's ahead-of-time compiler takes them."""
    dtypes = {'p_weight': weight, 'p_dweight': weight, 'p_bias': bias, 'p_dbias': bias}
    for name in ('p_mean', 'p_rstd', 'p_part', 'p_sums'):
        dtypes[name] = torch.float32
    short = {dtype: name for name, dtype in DTYPES.items()}
    types = {}
    for name in launch.kernel.arg_names:
        if name in launch.constexprs:
            types[name] = 'constexpr'
        elif name.startswith('p_'):
            types[name] = '*' + short[dtypes.get(name, x)]
        else:
            types[name] = 'fp32' if name == 'eps' else 'i32'
    return types


def compile_launch(launch: Launch, dtype: torch.dtype, capability: int) -> Compiled:
    """The launch compiled for sm_<capability>, its pointers 16-byte aligned."""
    types = signature(launch, dtype, torch.float32, torch.float32)
    return compile_kernel(
        launch.kernel, types, launch.constexprs, capability, **launch.options
    )


def accesses(ptx: str, operation: str) -> dict[str, int]:
    """How often each width, such as 'v4.b32' or 'b16', is loaded or stored."""
    widths = re.findall(rf'{operation}\.global[\w.:]*?((?:v\d\.)?b\d+)\b', ptx)
    return dict(Counter(widths))


def main(capability: int, dtype_name: str) -> None:
    dtype = DTYPES[dtype_name]
    seen = set()
    for shape in SHAPES:
        for channels_last in (False, True):
            for plan in plans(shape, dtype, channels_last):
                for launch in launches(plan):
                    key = (
                        launch.kernel.__name__,
                        tuple(launch.constexprs.items()),
                        launch.options['num_warps'],
                    )
                    if key in seen:
                        continue
                    seen.add(key)
                    compiled = compile_launch(launch, dtype, capability)
                    tile = plan.config.fwd if isinstance(plan, FwdPlan) else plan.tile
                    result = {
                        'kernel': launch.kernel.__name__,
                        'shape': shape.name,
                        'channels_last': channels_last,
                        'VEC': plan.config.VEC,
                        'L': shape.C // shape.G * shape.H * shape.W,
                        'on_chip': tile.on_chip,
                        'num_warps': launch.options['num_warps'],
                        **asdict(compiled.resources),
                        'loads': accesses(compiled.ptx, 'ld'),
                        'stores': accesses(compiled.ptx, 'st'),
                    }
                    print(json.dumps(result), flush=True)


if __name__ == '__main__':
    main(int(sys.argv[1]), sys.argv[2])
