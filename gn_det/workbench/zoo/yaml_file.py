"""YAML files, read key by key, with an answer to whatever is wrong in them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.web_address import split

_NAME = re.compile(r'[A-Za-z0-9][\w.+-]*')


class _Loader(yaml.SafeLoader):
    """YAML in which a key stands once; plain YAML keeps the last of its values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            # A list or a mapping as a key is refused below.
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f'{key.value!r} stands twice', key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds.

    Raises:
        UserError: naming the file, if it cannot be read or is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding='utf-8'), _Loader)
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror}') from error
    except UnicodeDecodeError as error:
        raise UserError(f'{path}: is not UTF-8: {error.reason}') from error
    except yaml.YAMLError as error:
        problem = ' '.join(str(error).split())
        raise UserError(f'{path}: is not YAML: {problem}') from error


class Mapping:
    """A mapping of a file, read key by key; complaints name file, place and key."""

    def __init__(self, path: Path, place: str, values: Any) -> None:
        self.path = path
        self.place = place
        if not isinstance(values, dict):
            raise self.error('', f'expected a mapping, got {type(values).__name__}')
        self.values = dict(values)
        self.known: list[str] = []

    def error(self, key: str, problem: str) -> UserError:
        where = ': '.join(filter(None, (str(self.path), self.place, key)))
        return UserError(f'{where}: {problem}')

    def take(self, key: str, kinds: type | tuple[type, ...], required: bool) -> Any:
        self.known.append(key)
        value = self.values.pop(key, None)
        if value is None:
            if required:
                raise self.error(key, 'is missing')
            return None
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.error(key, f'has a wrong type, {type(value).__name__}')
        return value

    def string(self, key: str) -> str:
        return self._text(key, self.take(key, str, required=True))

    def maybe_string(self, key: str) -> str | None:
        value = self.take(key, str, required=False)
        return None if value is None else self._text(key, value)

    def name(self, key: str) -> str:
        value = self.string(key)
        if not _NAME.fullmatch(value):
            raise self.error(key, f'{value!r} is no name: letters, digits and _ . + -')
        return value

    def url(self, key: str) -> str:
        return self._address(key, self.string(key))

    def maybe_url(self, key: str) -> str | None:
        value = self.maybe_string(key)
        return None if value is None else self._address(key, value)

    def positive(self, key: str, at_most: float = math.inf) -> float:
        value = self.take(key, (int, float), required=True)
        return self._in_range(key, value, at_most)

    def maybe_positive(self, key: str, at_most: float = math.inf) -> float | None:
        value = self.take(key, (int, float), required=False)
        return None if value is None else self._in_range(key, value, at_most)

    def maybe_count(self, key: str) -> int | None:
        value = self.take(key, int, required=False)
        return None if value is None else self._in_range(key, value, math.inf)

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.string(key)
        if value not in choices:
            raise self.error(key, f'{value!r} is none of {", ".join(choices)}')
        return value

    def strings(self, key: str, required: bool = True) -> tuple[str, ...]:
        values = self.take(key, list, required) or []
        if not all(isinstance(value, str) for value in values):
            raise self.error(key, 'expected a list of strings')
        return tuple(self._text(key, value) for value in values)

    def mapping(self, key: str) -> Mapping:
        return self._below(key, self.take(key, dict, required=True))

    def mappings(self, key: str, required: bool = True) -> Iterator[Mapping]:
        for value in self.take(key, list, required) or []:
            yield self._below(key, value)

    def _text(self, key: str, value: str) -> str:
        if not value.strip() or '|' in value or '\n' in value:
            raise self.error(key, f'{value!r} is empty, or no text for a table')
        return value

    def _address(self, key: str, value: str) -> str:
        try:
            parts = split(value)
        except UserError as error:
            raise self.error(key, str(error)) from error
        if parts.scheme not in ('http', 'https') or not parts.hostname:
            raise self.error(key, f'{value!r} is no http address')
        return value

    def _in_range(self, key: str, value: float, at_most: float) -> float:
        # Written so that it is false for NaN.
        if not (0 < value <= at_most and math.isfinite(value)):
            limit = '' if at_most == math.inf else f' up to {at_most:g}'
            raise self.error(key, f'{value} is no positive number{limit}')
        return value

    def _below(self, key: str, values: Any) -> Mapping:
        return Mapping(self.path, ': '.join(filter(None, (self.place, key))), values)

    def no_more_keys(self) -> None:
        for key in self.values:
            close = difflib.get_close_matches(str(key), self.known, n=1)
            hint = f' (did you mean {close[0]}?)' if close else ''
            raise self.error(str(key), f'unknown key{hint}')
