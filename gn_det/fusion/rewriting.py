"""Fused forwards that are made from the stock ones, for blocks that are many.

The source of a stock forward is compiled once more with three changes. With `waiting`'s
functions in the place of its calls and sums, a norm may wait in a local variable for
the activation or the sum behind it, through the conditions that forwards are full of:

    f(x)                          call(f, x)
    a + b, a += b                 add(a, b), a = add_to(a, b)
    a variable anywhere else      now(variable)
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import inspect
from types import FunctionType
from typing import Any, cast

from gn_det.fusion import waiting
from gn_det.fusion.core import FusedModule, definition, methods_of
from gn_det.fusion.waiting import Dry

_HELPERS = ('call', 'add', 'add_to', 'now')
_PREFIX = '_gn_det_'


class Rewritten(FusedModule):
    """Mixed into a registered class whose own code serves, rewritten."""

    always = True

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        stock = vars(cls).get('_stock')
        if stock is None:
            return
        methods = methods_of(stock)
        for name in methods:
            setattr(cls, name, _rewritten(getattr(stock, name), ends=False))
        if 'forward' in methods:
            cls.waiting = _rewritten(stock.forward, ends=True)

    @staticmethod
    def fused_norms(module):
        if not isinstance(module, Rewritten):
            return
        dry = Dry()
        forward = type(module).forward
        _, *given = inspect.signature(forward).parameters
        # What asks a map for its numbers ends it; the norms before were seen.
        with contextlib.suppress(Exception):
            forward(module, *[dry] * len(given))
        yield from dry.kinds.items()


class _Rewriter(ast.NodeTransformer):
    def __init__(self, function: ast.FunctionDef, ends: bool) -> None:
        self.ends = ends
        self.variables = {
            node.id
            for node in ast.walk(function)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        self.given = {argument.arg for argument in function.args.args[1:]}

    def waits(self, node: ast.expr) -> ast.expr:
        """An expression where a norm's output may be left waiting."""
        if isinstance(node, ast.Name):
            return node
        if isinstance(node, ast.IfExp):
            test = self.visit(node.test)
            return ast.IfExp(test, self.waits(node.body), self.waits(node.orelse))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            return _call('add', self.waits(node.left), self.waits(node.right))
        if isinstance(node, ast.Call) and self._may_be_of_a_map(node):
            function, argument = self.visit(node.func), self.waits(node.args[0])
            call = _call('call', function, argument)
            call.keywords = [self.visit(keyword) for keyword in node.keywords]
            return call
        return cast(ast.expr, self.generic_visit(node))

    def _may_be_of_a_map(self, node: ast.Call) -> bool:
        if len(node.args) != 1 or isinstance(node.args[0], ast.Starred):
            return False
        root = node.func
        while isinstance(root, (ast.Attribute, ast.Subscript)):
            root = root.value
        if not isinstance(root, ast.Name) or not all(k.arg for k in node.keywords):
            return False
        if root is node.func:
            return not hasattr(builtins, root.id)
        # Else it is a method of a map.
        return root.id not in self.variables | self.given

    def visit(self, node):
        found = super().visit(node)
        # Tracebacks and debuggers show the stock line.
        for new in _as_list(found):
            if 'lineno' in node._attributes:
                ast.copy_location(new, node)
        return found

    def visit_Name(self, node):
        if node.id in self.variables and isinstance(node.ctx, ast.Load):
            return _call('now', node)
        return node

    def visit_Attribute(self, node):
        if node.attr == 'shape' and isinstance(node.value, ast.Name):
            return node
        return self.generic_visit(node)

    def _now(self, node):
        found = self.waits(node)
        return found if found is node else _call('now', found)

    visit_IfExp = visit_BinOp = visit_Call = _now

    def visit_Assign(self, node):
        # Of two names for one norm's output, neither waits.
        lone = len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        waits = lone and not isinstance(node.value, ast.Name)
        value = self.waits(node.value) if waits else self.visit(node.value)
        return ast.Assign([self.visit(target) for target in node.targets], value)

    def visit_AugAssign(self, node):
        if not isinstance(node.target, ast.Name):
            return self.generic_visit(node)
        name = node.target.id
        read, written = ast.Name(name, ast.Load()), ast.Name(name, ast.Store())
        if isinstance(node.op, ast.Add):
            value = _call('add_to', read, self.waits(node.value))
            return ast.Assign([written], value)
        computed = ast.Assign([written], _call('now', read))
        return [computed, self.generic_visit(node)]

    def visit_Return(self, node):
        if node.value is None:
            return node
        value = self.waits(node.value) if self.ends else self.visit(node.value)
        return ast.Return(value)

    def visit_FunctionDef(self, node):
        ends, self.ends = self.ends, False
        self.generic_visit(node)
        self.ends = ends
        return node


def _call(helper: str, *args: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(_PREFIX + helper, ast.Load()), list(args), [])


def _rewritten(stock: FunctionType, *, ends: bool) -> FunctionType:
    """The function with `waiting`'s helpers; it `ends` in a norm that may wait."""
    code = stock.__code__
    function = definition(code)
    rewriter = _Rewriter(function, ends)
    function.decorator_list = []
    function.body = [
        statement
        for node in function.body
        for statement in _as_list(rewriter.visit(node))
    ]
    # What the stock function's closure holds, and the helpers, as another closure.
    scope = dict(zip(code.co_freevars, stock.__closure__ or (), strict=True))
    held = {name: cell.cell_contents for name, cell in scope.items()}
    held |= {_PREFIX + name: getattr(waiting, name) for name in _HELPERS}
    maker = ast.parse(f'def make({", ".join(held)}): return {function.name}')
    maker.body[0].body.insert(0, function)
    ast.fix_missing_locations(function)
    ast.increment_lineno(function, code.co_firstlineno - function.lineno)
    found: dict[str, Any] = {}
    tree = ast.fix_missing_locations(maker)
    exec(compile(tree, code.co_filename, 'exec'), stock.__globals__, found)
    new = found['make'](**held)
    new.__module__, new.__qualname__ = stock.__module__, stock.__qualname__
    return new


def _as_list(found: ast.AST | list[ast.AST]) -> list[Any]:
    return found if isinstance(found, list) else [found]
