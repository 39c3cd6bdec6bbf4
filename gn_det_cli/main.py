"""`gn-det COMMAND …`."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Sequence
from typing import NoReturn

from gn_det_cli import commands
from gn_det_cli.process import report_errors


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        self.exit(2, f'error: {message}; see {self.prog} --help\n')


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; each is a module of `gn_det_cli.commands`.

    The module's docstring is the command's help, and its `add_arguments` adds its flags
    and sets `run`, a function of the parsed arguments.
    """
    parser = _Parser(
        prog='gn-det', description='Group Normalization for detection with MMDetection'
    )
    subparsers = parser.add_subparsers(required=True, metavar='COMMAND')
    for found in pkgutil.iter_modules(commands.__path__):
        module = importlib.import_module(f'{commands.__name__}.{found.name}')
        summary = ' '.join(module.__doc__.split())
        command = subparsers.add_parser(
            found.name,
            help=summary.partition('; ')[0].rstrip('.'),
            description=summary,
        )
        module.add_arguments(command)
    return parser


@report_errors()
def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; `sys.argv` by default."""
    args = build_parser().parse_args(arguments)
    args.run(args)
