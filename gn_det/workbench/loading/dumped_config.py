"""Configs that mmengine dumped, read as data: what stands in them is never run.

A run's folder holds one as `vis_data/config.py`, a checkpoint one as text in its meta.
mmengine reads them by running them, or the modules and base files that they name.
"""

from __future__ import annotations

import ast
import math
import operator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gn_det.workbench.errors import UserError

# A resolved config has some 20,000 characters, one with LVIS's classes 60,000.
_MOST_CHARACTERS = 2**22
_NUMBERS = {'inf': math.inf, 'nan': math.nan}
_SIGNS = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def read_config(path: str | Path) -> Config:
    """The settings of a dumped config file; nothing in it is run or imported.

    Raises:
        UserError: if it cannot be read, or does anything but set plain values.
    """
    try:
        text = Path(path).read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'cannot read the config {path}: {reason}') from error
    try:
        return Config(parse_config(text), cfg_text=text, filename=str(path))
    except (ValueError, KeyError) as error:
        raise UserError(
            f'{path} is no config that a run dumped: {error}; it is read as data and '
            'not run'
        ) from error


def parse_config(text: str) -> dict[str, Any]:
    """The settings in the text of a dumped config.

    It may assign literals, calls of `dict`, and dotted names, which stand for the
    classes that mmengine writes without quotes and are returned as text.

    Raises:
        ValueError: for anything else, with the line.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ValueError(f'it has {len(text)} characters')
    try:
        settings = {}
        for statement in ast.parse(text).body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    settings[name] = _value(value)
                case _:
                    raise _refused(statement, 'is no assignment')
        return settings
    except SyntaxError as error:
        raise ValueError(f'line {error.lineno}: {error.msg}') from error
    except (RecursionError, MemoryError) as error:
        raise ValueError('it is nested too deeply') from error


def _value(node: ast.expr) -> Any:
    match node:
        case ast.Constant(value=value) if value is not ...:
            return value
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Set(elts=items):
            return {_hashable(item) for item in items}
        case ast.Dict(keys=keys, values=values) if None not in keys:
            pairs = zip(keys, values, strict=True)
            return {_hashable(key): _value(value) for key, value in pairs}
        case ast.Call(func=ast.Name(id='dict'), args=args, keywords=keywords):
            if len(args) <= 1 and all(isinstance(arg, ast.Dict) for arg in args):
                given = _value(args[0]) if args else {}
                return {**given, **{_name(k): _value(k.value) for k in keywords}}
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            number = _value(operand)
            if isinstance(number, int | float | complex):
                return _SIGNS[type(sign)](number)
        case ast.Name(id=name):
            return _NUMBERS.get(name, name)
        case ast.Attribute(value=owner, attr=name):
            dotted = _value(owner)
            if isinstance(owner, ast.Name | ast.Attribute):
                return f'{dotted}.{name}'
    raise _refused(node, 'is no plain value')


def _name(keyword: ast.keyword) -> str:
    if keyword.arg is None:
        raise _refused(keyword, 'is no plain value')
    return keyword.arg


def _hashable(node: ast.expr) -> Any:
    value = _value(node)
    try:
        hash(value)
    except TypeError:
        raise _refused(node, 'cannot be a key') from None
    return value


def _refused(node: ast.AST, reason: str) -> ValueError:
    shown = ' '.join(ast.unparse(node).split())[:60]
    return ValueError(f'line {node.lineno}: `{shown}` {reason}')
