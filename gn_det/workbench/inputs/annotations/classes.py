"""The classes of a config beside the categories of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import near


def check_classes(
    path: str, content: Mapping[str, Any], classes: Sequence[str], where: str
) -> None:
    """Check that each class is a category, in the order in which labels are given.

    mmdet numbers the labels in the order of the categories in the file and names them
    in the order of the classes. Categories that are no class stay out, as root
    categories of exporters do.

    Args:
        path: the annotation file.
        content: of `check_annotations`: no two categories have the same name.
        classes: of the config.
        where: what in the config has them.

    Raises:
        UserError: naming what is missing, with near names, or the order to write.
    """
    names = [category['name'] for category in content['categories']]
    if len(set(classes)) < len(classes):
        twice = next(name for name in classes if list(classes).count(name) > 1)
        raise UserError(f'the classes of {where} have {twice!r} twice; name it once')
    missing = [name for name in classes if name not in set(names)]
    if missing:
        raise UserError(
            f'{len(missing)} of the {len(classes)} classes of {where} are no category '
            f'of {path}, first {missing[0]!r}{near(missing[0], names)}; its categories '
            f'are {_shown(names)}: set metainfo=dict(classes=(…)) of the datasets to '
            'the names in the file'
        )
    ordered = [name for name in names if name in set(classes)]
    if ordered != list(classes):
        raise UserError(
            f'{path} lists its categories in another order than {where} its classes, '
            'and labels would have the wrong names; write '
            f'classes=({_listed(ordered)}) in the config, or order the categories in '
            'the file'
        )


def _listed(names: Sequence[str]) -> str:
    return ', '.join(map(repr, names)) + (',' if len(names) == 1 else '')


def _shown(names: Sequence[str]) -> str:
    return ', '.join([*names[:10], *(['…'] if len(names) > 10 else [])])
