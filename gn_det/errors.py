"""Mistakes of the caller: one line on stderr and a non-zero exit code."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable

USER_ERROR_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130


class UserError(Exception):
    """A mistake the user can mend; its text names the thing, the place, the way out."""


def report_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a tool's `main`: a `UserError` becomes `error: …` and exit code 2.

    Ctrl-C ends with exit code 130 and no stack trace. In a distributed run only rank 0
    speaks. Other exceptions are defects and keep their trace.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        try:
            main()
        except UserError as error:
            _say(f'error: {error}')
            sys.exit(USER_ERROR_EXIT_CODE)
        except KeyboardInterrupt:
            _say('interrupted')
            sys.exit(INTERRUPTED_EXIT_CODE)

    return wrapped


def _say(line: str) -> None:
    if os.environ.get('RANK', '0') == '0':
        sys.stderr.write(f'{line}\n')
