"""The number of classes of every head of a model, by its config."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmdet.registry import MODELS
from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import registered

# Their classes are not the dataset's: objects or none, and areas without objects.
_OTHER_CLASSES = frozenset({'rpn_head', 'semantic_head', 'panoptic_head'})


def check_heads(cfg: Config, classes: Sequence[str], where: str) -> None:
    """Check that every head predicts as many classes as the data have.

    Raises:
        UserError: naming the first head that does not.
    """
    for place, count in class_heads(cfg.get('model'), 'model'):
        if count != len(classes):
            raise UserError(
                f'{place}.num_classes is {count}, and {where} has {len(classes)} '
                f'classes; set it to {len(classes)} in {cfg.filename} or by '
                '--cfg-options'
            )


def class_heads(part: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Where in a model's config the heads for the classes stand, and their number."""
    if isinstance(part, Mapping):
        # The heads of a cascade stand in a list: their name is the last but one.
        is_head = any(name.endswith('_head') for name in place.split('.')[-2:])
        if is_head and 'type' in part and not part.get('class_agnostic'):
            count = part.get('num_classes', _default(part['type']))
            if count is not None:
                yield place, count
        for name, item in part.items():
            if name not in _OTHER_CLASSES:
                yield from class_heads(item, f'{place}.{name}')
    elif isinstance(part, list | tuple):
        for number, item in enumerate(part):
            yield from class_heads(item, f'{place}.{number}')


def _default(kind: str | type) -> int | None:
    """What a head has if nobody says; None if it has no such setting."""
    found = registered(MODELS, kind)
    for base in getattr(found, '__mro__', ()):
        if '__init__' in vars(base):
            parameter = inspect.signature(base.__init__).parameters.get('num_classes')
            if parameter is not None:
                default = parameter.default
                return None if default is inspect.Parameter.empty else default
    return None
