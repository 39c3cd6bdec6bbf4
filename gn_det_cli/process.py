"""How a command ends, and what it keeps from the screen."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import sys
from collections.abc import Iterator
from typing import NoReturn

INTERRUPTED_EXIT_CODE = 130
# As a shell reports a process that SIGPIPE ended: `gn-det … | head`.
READER_GONE_EXIT_CODE = 141


@contextlib.contextmanager
def report_errors() -> Iterator[None]:
    """End the process as a command does; also `@report_errors()` on its `main`.

    An exception with an `exit_code`, as `UserError` has, becomes the line `error: …`,
    the last on the screen. Ctrl-C ends with exit code 130, a gone reader of stdout with
    141, both without a stack trace. In a distributed run rank 0 speaks for all, except
    of what one met alone: an exception with `on_any_rank`. Other exceptions are defects
    and keep their trace.
    """
    # A handler whose stream is gone would print a stack trace for each line.
    logging.raiseExceptions = False
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        _leave('interrupted', INTERRUPTED_EXIT_CODE)
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        # The interpreter flushes stdout once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(READER_GONE_EXIT_CODE)
    except Exception as error:
        if not hasattr(error, 'exit_code'):
            raise
        of_all = not getattr(error, 'on_any_rank', False)
        _leave(f'error: {error}', error.exit_code, of_all)


@contextlib.contextmanager
def quiet_imports() -> Iterator[None]:
    """Import host libraries without what they print about their optional parts."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def _leave(text: str, code: int, of_all: bool = True) -> NoReturn:
    # A name in it may hold line ends or the terminal's control characters.
    line = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if not of_all or os.environ.get('RANK', '0') == '0':
        sys.stderr.write(f'{line}\n')
    sys.exit(code)


def _reader_is_gone() -> bool:
    watch = select.poll()
    watch.register(1, 0)
    return any(event & select.POLLERR for _, event in watch.poll(0))
