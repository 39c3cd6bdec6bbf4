"""Records of a JSON list, a field of all of them at once, and the first wrong one."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any, NoReturn

import numpy as np

from gn_det.workbench.errors import UserError

# Beyond it a number of pixels is no measurement, and its square no finite area.
_LARGEST = 1e15

_shown = reprlib.Repr()
_shown.maxlist = _shown.maxdict = 5
_shown.maxstring = _shown.maxother = 40


@dataclass(frozen=True)
class Field:
    """What a field has to hold.

    Attributes:
        wanted: the same in words, for messages.
        is_right: whether one value is right.
        are_right: a quick look at all values; where it says no, `is_right` decides.
    """

    wanted: str
    is_right: Callable[[Any], bool]
    are_right: Callable[[list], bool]


@dataclass(frozen=True)
class Records:
    """A list of a file.

    Attributes:
        path: the file.
        name: of the list: `images`, `annotations`, …
        items: what it holds; that they are objects is known after the first `column`.
    """

    path: str
    name: str
    items: list[dict[str, Any]]

    def column(self, name: str, field: Field) -> list[Any]:
        """The values of a field that every record must have.

        Raises:
            UserError: naming the first record without it or with a wrong value.
        """
        try:
            values = [record[name] for record in self.items]
            if field.are_right(values):
                return values
        except (KeyError, TypeError, OverflowError, ValueError):
            pass
        for number, record in enumerate(self.items):
            if not isinstance(record, dict):
                self.refuse(number, f'is {_shown.repr(record)}; expected an object')
            if name not in record:
                self.refuse(number, f'has no {name}; expected {field.wanted}')
            if not field.is_right(record[name]):
                self.refuse(
                    number,
                    f'has the {name} {_shown.repr(record[name])}; expected '
                    f'{field.wanted}',
                )
        return [record[name] for record in self.items]

    def optional(self, name: str, field: Field) -> None:
        """Check a field where it is given."""
        have = [record for record in self.items if name in record]
        try:
            if field.are_right([record[name] for record in have]):
                return
        except (TypeError, OverflowError, ValueError):
            pass
        for number, record in enumerate(self.items):
            if name in record and not field.is_right(record[name]):
                self.refuse(
                    number,
                    f'has the {name} {_shown.repr(record[name])}; expected '
                    f'{field.wanted}',
                )

    def refuse(self, number: int, reason: str) -> NoReturn:
        """Raise the one line about a record: file, index, id and what is wrong."""
        record = self.items[number]
        known = isinstance(record, dict) and isinstance(record.get('id'), int | str)
        ident = f' (id {_shown.repr(record["id"])})' if known else ''
        raise UserError(f'{self.path}: {self.name}[{number}]{ident} {reason}')


def types_of(values: Any) -> set[type]:
    """The types in an iterable; a subclass is a type of its own, as bool is of int."""
    return set(map(type, values))


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return type(value) in (int, float) and -_LARGEST < value < _LARGEST


def _are_numbers(values: list) -> bool:
    if not types_of(values) <= {int, float}:
        return False
    numbers = np.array(values, np.float64)
    return bool((np.abs(numbers) < _LARGEST).all())


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 < value < _LARGEST


def _is_id(value: Any) -> bool:
    return type(value) in (int, str)


def _is_text(value: Any) -> bool:
    """Python hands names that are no UTF-8 on with marks no encoder takes."""
    if type(value) is not str or not value or '\0' in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _are_texts(values: list[str]) -> bool:
    if types_of(values) != {str} or not all(values):
        return False
    return _is_text(''.join(values))


def _is_box(value: Any) -> bool:
    right = type(value) is list and len(value) == 4 and all(map(is_number, value))
    return right and value[2] >= 0 and value[3] >= 0


def _are_boxes(values: list[list]) -> bool:
    if not (types_of(values) <= {list} and set(map(len, values)) <= {4}):
        return False
    flat = list(chain.from_iterable(values))
    return _are_numbers(flat) and bool(
        (np.array(flat).reshape(-1, 4)[:, 2:] >= 0).all()
    )


ID = Field(
    'a whole number or a name',
    _is_id,
    lambda values: types_of(values) in ({int}, {str}, set()),
)
NAME = Field('a name in UTF-8', _is_text, _are_texts)
PIXELS = Field(
    'a whole number of pixels',
    _is_whole,
    lambda values: types_of(values) <= {int} and min(values, default=1) > 0,
)
NUMBER = Field('a finite number', is_number, _are_numbers)
AREA = Field(
    'a finite number, not negative',
    lambda value: is_number(value) and value >= 0,
    lambda values: _are_numbers(values) and min(values, default=0) >= 0,
)
BOX = Field(
    'four finite numbers: x, y, width, height, the last two not negative',
    _is_box,
    _are_boxes,
)
FLAG = Field(
    '0 or 1',
    lambda value: type(value) in (int, bool) and value in (0, 1),
    lambda values: types_of(values) <= {int, bool} and set(values) <= {0, 1},
)
