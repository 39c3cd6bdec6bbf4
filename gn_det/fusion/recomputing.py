"""A model whose forward pass keeps no output of a norm that backward can make again."""

from __future__ import annotations

from gn_det.fusion.blocks import FusedModule
from gn_det.ops import recompute_activations


class Recomputing(FusedModule):
    """Mixed into the class of a whole model."""

    prefix = 'Recomputing'

    def forward(self, *args, **kwargs):
        with recompute_activations():
            return super().forward(*args, **kwargs)
