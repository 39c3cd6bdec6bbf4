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
        num_groups: G, which must divide C (the paper uses 32). This or
            `channels_per_group` is required: there is no universally right value.
        eps: added to the variance.
        affine: whether there are a weight and a bias, each of shape (C,).
        activation: `None`, or `'relu'` to apply ReLU to the sum in the same pass.
        channels_per_group: C / G instead of G, so that one `norm_cfg` gives layers of
            different width groups of the same size; 1 is Instance Norm.

    Raises:
        ValueError: if not exactly one of `num_groups` and `channels_per_group` is
            given, if it is not positive or does not divide `num_channels`, or if
            `activation` is unknown.
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
        channels_per_group: int | None = None,
    ) -> None:
        if num_groups is None and channels_per_group is None:
            raise ValueError(
                'FusedGN: num_groups is missing; give it in the norm_cfg, for example '
                "norm_cfg=dict(type='FusedGN', num_groups=32)"
            )
        if num_groups is not None and channels_per_group is not None:
            raise ValueError(
                f'FusedGN: num_groups={num_groups} and channels_per_group='
                f'{channels_per_group} exclude each other; set one of them to None'
            )
        if channels_per_group is None:
            _check_divides('num_groups', num_groups, num_channels)
        else:
            _check_divides('channels_per_group', channels_per_group, num_channels)
            num_groups = num_channels // channels_per_group
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
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None = None,
        activation: str | None = None,
    ) -> torch.Tensor:
        """Normalise x.

        Args:
            x: (N, C, *).
            residual: added before the activation; of x's shape and dtype.
            activation: of this call, where the layer itself has none: a block that
                knows what follows its norm asks for it here.
        """
        return group_norm(
            x,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            activation=activation or self.activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        """The arguments of the layer, `activation` only where there is one."""
        fused = f', activation={self.activation}' if self.activation else ''
        return super().extra_repr() + fused


def _check_divides(name: str, value: int, num_channels: int) -> None:
    if value < 1:
        raise ValueError(f'FusedGN: {name} must be a positive number, got {value}')
    if num_channels % value:
        raise ValueError(
            f'FusedGN: {name}={value} does not divide the {num_channels} channels of '
            f'the layer before it (num_channels={num_channels}); choose a {name} that '
            'does'
        )
