"""What is measured: one map with its fusion, dtype and layout, and its tensors."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchmarks.shapes import MODELS, SHAPES

DTYPES = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}
LAYOUTS = {'nchw': torch.contiguous_format, 'nhwc': torch.channels_last}


@dataclass(frozen=True)
class Case:
    """A map (N, C, H, W), what is fused into its norm, and its calls per network."""

    N: int
    C: int
    H: int
    W: int
    G: int
    kind: str
    dtype: str
    layout: str
    count_r50: int = 0
    count_r101: int = 0

    @property
    def elements(self) -> int:
        return self.N * self.C * self.H * self.W

    @property
    def itemsize(self) -> int:
        return DTYPES[self.dtype].itemsize

    @property
    def relu(self) -> bool:
        return self.kind != 'plain'

    @property
    def residual(self) -> bool:
        return self.kind == 'residual_relu'

    def __str__(self) -> str:
        return f'{self.N}x{self.C}x{self.H}x{self.W} {self.kind}'


def network_cases(
    dtype: str,
    layout: str,
    models: Iterable[str] = MODELS,
    kinds: Iterable[str] | None = None,
) -> list[Case]:
    """One case per distinct call of the models' norms, largest maps first.

    Without `kinds` each map comes with what the networks fuse into it. With `kinds`
    every map comes with each of them; a combination that no network uses counts 0.
    """
    models = tuple(models)
    found: dict[tuple, Case] = {}
    for shape in SHAPES:
        if not any(shape.calls(model) for model in models):
            continue
        for kind in kinds or (shape.kind,):
            size = (shape.N, shape.C, shape.H, shape.W, shape.G)
            case = found.get((size, kind)) or Case(*size, kind, dtype, layout)
            if kind == shape.kind:
                case = replace(
                    case,
                    count_r50=case.count_r50 + shape.r50,
                    count_r101=case.count_r101 + shape.r101,
                )
            found[size, kind] = case
    return sorted(found.values(), key=lambda case: -case.elements)


@dataclass(frozen=True)
class Inputs:
    """The tensors of one call; `leaves` are those that get a gradient."""

    x: Tensor
    weight: Tensor
    bias: Tensor
    residual: Tensor | None
    dy: Tensor

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        leaves = (self.x, self.weight, self.bias)
        return leaves if self.residual is None else (*leaves, self.residual)

    def map(self, function) -> 'Inputs':
        """The same inputs with each tensor replaced; leaves stay leaves."""

        def apply(tensor):
            if tensor is None:
                return None
            new = function(tensor.detach())
            return new.requires_grad_(tensor.requires_grad)

        return Inputs(
            *map(apply, (self.x, self.weight, self.bias, self.residual, self.dy))
        )


def make_inputs(case: Case, device: torch.device | str, seed: int = 0) -> Inputs:
    """Random inputs, all of them, so that no error hides behind a zero or a one.

    Weight and bias are fp32 but exact in 16 bits: casting them changes nothing, and all
    implementations are compared on equal inputs.
    """
    generator = torch.Generator(device).manual_seed(seed)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, device=device)

    def draw_map(scale: float, shift: float) -> Tensor:
        drawn = draw(case.N, case.C, case.H, case.W).mul_(scale).add_(shift)
        return drawn.to(DTYPES[case.dtype], memory_format=LAYOUTS[case.layout])

    def draw_vector() -> Tensor:
        return draw(case.C).to(torch.bfloat16).float()

    return Inputs(
        x=draw_map(2.0, 0.5).requires_grad_(),
        weight=draw_vector().requires_grad_(),
        bias=draw_vector().requires_grad_(),
        residual=draw_map(1.0, 0.0).requires_grad_() if case.residual else None,
        dy=draw_map(1.0, 0.0),
    )
