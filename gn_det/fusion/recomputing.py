"""A model whose forward pass keeps no output of a norm that backward can make again."""

from __future__ import annotations

from typing import Any

from gn_det.fusion.core import FusedModule
from gn_det.ops import recompute_activations


class Recomputing(FusedModule):
    """Mixed into the class of a whole model; `loss` is OpenMMLab's way in."""

    _prefix = 'Recomputing'

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's forward."""
        with recompute_activations():
            return super().forward(*args, **kwargs)


class RecomputingLoss(Recomputing):
    """The same of a model that has a `loss`, which others may call by itself."""

    def loss(self, *args: Any, **kwargs: Any) -> Any:
        """The model's losses."""
        with recompute_activations():
            return super().loss(*args, **kwargs)  # type: ignore[misc]


def recomputing(model: object) -> type[Recomputing]:
    """What to mix into the class of a model."""
    return RecomputingLoss if callable(getattr(model, 'loss', None)) else Recomputing
