"""`FusedGroupNorm`, registered as `FusedGN`."""

from __future__ import annotations

import torch
from mmengine.registry import MODELS
from torch import nn

from gn_det.ops import group_norm

# NOTE The class has to be a *direct* subclass of nn.GroupNorm: mmengine's initialisers
# match a class by its own name and its direct bases' names only, so a grandchild would
# be skipped without a word. It takes `num_channels` first, because mmcv's
# build_norm_layer calls every class but nn.GroupNorm itself as
# `layer(num_features, **cfg)`.


@MODELS.register_module('FusedGN')
class FusedGroupNorm(nn.GroupNorm):
    """Group Norm over `(N, C, *)`, with an optional residual and ReLU behind it.

    `y = act(GN(x) + residual)`, arXiv 1803.08494, eq. 7. Parameters, state-dict keys
    and defaults are those of `torch.nn.GroupNorm`. The arithmetic, its dtypes and the
    choice of implementation are `gn_det.ops.group_norm`'s: the output has the dtype and
    memory format of x, under autocast too.

    Args:
        num_channels: C, the channels of x. mmcv passes it from the layer before.
        num_groups: G, which must divide C. Required: there is no universally right
            value (the paper uses 32).
        eps: added to the variance.
        affine: whether there are a weight and a bias, each of shape (C,).
        activation: `None`, or `'relu'` to apply ReLU to the sum in the same pass.

    Raises:
        ValueError: if `num_groups` is missing or not positive, if it does not divide
            `num_channels`, or if `activation` is unknown.
    """

    _abbr_ = 'gn'

    def __init__(
        self,
        num_channels: int,
        num_groups: int | None = None,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        activation: str | None = None,
    ) -> None:
        if num_groups is None:
            raise ValueError(
                'FusedGN: num_groups is missing; give it in the norm_cfg, for example '
                "norm_cfg=dict(type='FusedGN', num_groups=32)"
            )
        if num_groups < 1:
            raise ValueError(
                f'FusedGN: num_groups must be a positive number, got {num_groups}'
            )
        if num_channels % num_groups:
            raise ValueError(
                f'FusedGN: num_groups={num_groups} does not divide the '
                f'{num_channels} channels of the layer before it (num_channels='
                f'{num_channels}); choose a num_groups that does'
            )
        if activation not in (None, 'relu'):
            raise ValueError(
                f"FusedGN: activation must be None or 'relu', got {activation!r}"
            )
        super().__init__(
            num_groups=num_groups,
            num_channels=num_channels,
            eps=eps,
            affine=affine,
            device=device,
            dtype=dtype,
        )
        self.activation = activation

    def forward(
        self, x: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Normalise x; `residual`, if given, has x's shape and dtype."""
        return group_norm(
            x,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            activation=self.activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        """The arguments of the layer, `activation` only where there is one."""
        fused = f', activation={self.activation}' if self.activation else ''
        return super().extra_repr() + fused
