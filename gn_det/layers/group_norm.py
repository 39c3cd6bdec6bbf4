"""Group Norm as a module, in mmcv's order of arguments and in torch's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gn_det.ops import group_norm
from gn_det.ops.functional import composed

# NOTE Each class has to be a *direct* subclass of nn.GroupNorm: mmengine's initialisers
# match a class by its own name and its direct bases' names only, so a grandchild would
# be skipped without a word. Hence two classes with one forward, not a family.


class FusedGroupNorm(nn.GroupNorm):
    """Group Norm over `(N, C, *)` for OpenMMLab, where it is registered as `FusedGN`.

    `y = act(GN(x) + residual)`, arXiv 1803.08494, eq. 7. Parameters, state-dict keys
    and defaults are those of `torch.nn.GroupNorm`; `num_channels` comes first, because
    mmcv's build_norm_layer calls every class but nn.GroupNorm itself as
    `layer(num_features, **cfg)`. `gn_det.layers.GroupNorm` has torch's order. The
    arithmetic, its dtypes and the choice of implementation are
    `gn_det.ops.group_norm`'s: the output has the dtype and memory format of x, under
    autocast too.

    Args:
        num_channels: C, the channels of x. mmcv passes it from the layer before.
        num_groups: G, which must divide C (the paper uses 32). This or
            `channels_per_group` is required: there is no universally right value.
        eps: added to the variance.
        affine: whether there are a weight and a bias, each of shape (C,).
        bias: whether there is a bias beside the weight.
        channels_per_group: C / G instead of G, so that one `norm_cfg` gives layers of
            different width groups of the same size; 1 is Instance Norm.

    Raises:
        ValueError: if not exactly one of `num_groups` and `channels_per_group` is
            given, or if it is not positive or does not divide `num_channels`.
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
        bias: bool = True,
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
            swapped = (
                f'FusedGroupNorm({num_groups}, {num_channels}): num_channels comes '
                'first, and gn_det.layers.GroupNorm has the order of nn.GroupNorm'
            )
            _check_divides('FusedGN', 'num_groups', num_groups, num_channels, swapped)
        else:
            name = 'channels_per_group'
            _check_divides('FusedGN', name, channels_per_group, num_channels)
            num_groups = num_channels // channels_per_group
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        if not bias:
            self.register_parameter('bias', None)

    def forward(
        self,
        x: Tensor,
        residual: Tensor | None = None,
        activation: str | None = None,
    ) -> Tensor:
        """Normalise x.

        Args:
            x: (N, C, *).
            residual: added to the norm; of x's shape and dtype.
            activation: `None`, or the function of the sum, as in
                `gn_det.ops.group_norm`. As with the residual, who calls knows it: a
                `norm_cfg` that named one would put it behind norms that are added to
                something first.
        """
        if torch.jit.is_scripting():
            return composed(
                x,
                self.num_groups,
                self.weight,
                self.bias,
                self.eps,
                activation,
                residual,
            )
        return group_norm(
            x,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            activation=activation,
            residual=residual,
        )


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` with the same arguments, computed by `gn_det.ops`.

    For models outside OpenMMLab, `from gn_det.layers import GroupNorm` in place of
    torch's; what it takes beyond x, and what differs under autocast, is said at
    `FusedGroupNorm`.

    Args:
        num_groups: G, which must divide C.
        num_channels: C, the channels of x.
        eps: added to the variance.
        affine: whether there are a weight and a bias, each of shape (C,).
        bias: whether there is a bias beside the weight.

    Raises:
        ValueError: if `num_groups` is not positive or does not divide `num_channels`.
    """

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        swapped = f'GroupNorm({num_channels}, {num_groups}): num_groups comes first'
        _check_divides('GroupNorm', 'num_groups', num_groups, num_channels, swapped)
        super().__init__(num_groups, num_channels, eps, affine, device, dtype)
        if not bias:
            self.register_parameter('bias', None)

    # torch's own has no residual and no activation.
    forward = FusedGroupNorm.forward  # type: ignore[assignment]


FUSED_NORMS = (FusedGroupNorm, GroupNorm)
"""The classes that take a residual and an activation; a subclass may do more."""


def _check_divides(
    layer: str, name: str, value: int, num_channels: int, swapped: str | None = None
) -> None:
    if value < 1:
        raise ValueError(f'{layer}: {name} must be a positive number, got {value}')
    if num_channels % value:
        message = (
            f'{layer}: {name}={value} does not divide the {num_channels} channels of '
            f'the layer before it (num_channels={num_channels})'
        )
        if swapped and value % num_channels == 0:
            raise ValueError(f'{message}; did you mean {swapped}')
        raise ValueError(f'{message}; choose a {name} that does')
