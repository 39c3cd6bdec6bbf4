"""A setting that no class knows, answered as the mistake it is."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.config import Config

from gn_det.workbench.errors import UserError

_UNKNOWN_KEY = re.compile(
    r"(\w+)(?:\.__init__)?\(\) got an unexpected keyword argument '(\w+)'"
)
_UNKNOWN_TYPE = re.compile(r'(\S+) is not in the (\S+) registry')


@contextmanager
def name_wrong_settings(cfg: Config) -> Iterator[None]:
    """Name the setting of a config that what is built in the block does not know.

    An error of what merely runs in the block is none of a setting's and stays.

    Raises:
        UserError: instead of Python's TypeError for a key that stands in the config,
            and mmengine's KeyError for a type that is registered nowhere.
    """
    try:
        yield
    except TypeError as error:
        said = _UNKNOWN_KEY.search(str(error)) if _was_building(error) else None
        places = list(_places(cfg, said[2])) if said else []
        if not places:
            raise
        raise UserError(
            f'{" or ".join(places)}: {said[1]} has no such setting; mend '
            f'{cfg.filename} or --cfg-options'
        ) from error
    except KeyError as error:
        text = str(error).strip('\'"')
        said = _UNKNOWN_TYPE.search(text) if _was_building(error) else None
        places = list(_places(cfg, 'type', said[1])) if said else []
        if not places:
            raise
        raise UserError(
            f'{" or ".join(places)}: {said[1]} is not in the registry {said[2]}; mend '
            f'{cfg.filename} or --cfg-options, or name its module in custom_imports'
        ) from error


def _was_building(error: Exception) -> bool:
    """Whether mmengine was making an object of a config when it was raised."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_code.co_name == 'build_from_cfg' for frame, _ in frames)


def _places(cfg: Config, key: str, wanted: str | None = None) -> Iterator[str]:
    """Where a key stands among the arguments of a class, with this value if one is."""

    def search(value: Any, path: str) -> Iterator[str]:
        if isinstance(value, dict):
            if 'type' in value and key in value and wanted in (None, value[key]):
                yield f'{path}.{key}'
            for name, item in value.items():
                yield from search(item, f'{path}.{name}' if path else name)
        elif isinstance(value, list | tuple):
            for place, item in enumerate(value):
                yield from search(item, f'{path}.{place}')

    yield from search(cfg.to_dict(), '')
