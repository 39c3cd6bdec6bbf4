"""Mistakes of the caller: one line on stderr and a non-zero exit code."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, TextIO

USER_ERROR_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130
# As a shell reports a process that SIGPIPE ended: `tool | head`.
READER_GONE_EXIT_CODE = 141


class UserError(Exception):
    """A mistake the user can mend; its text names the thing, the place, the way out."""


def report_errors(main: Callable[[], None]) -> Callable[[], None]:
    """Decorate a tool's `main`: a `UserError` becomes `error: …` and exit code 2.

    Ctrl-C ends with exit code 130 and no stack trace, and so does, with 141, stdout
    whose reader has gone; stdout that cannot be written otherwise is a `UserError`.
    Lines of a log that cannot be written end nothing: it is said when `main` has come
    to its end. Characters that stdout has no code for are written as escapes. In a
    distributed run only rank 0 speaks. Other exceptions are defects and keep their
    trace.
    """

    @functools.wraps(main)
    def wrapped() -> None:
        # There is none where it was closed before the start; print then does nothing.
        output = None if sys.stdout is None else _Output(sys.stdout)
        # A handler that fails would print a stack trace for each line.
        logging.raiseExceptions = False
        try:
            with contextlib.redirect_stdout(output):
                main()
                if output is not None:
                    output.close_run()
        except _OutputFailed as failure:
            output.discard()
            if isinstance(failure.reason, BrokenPipeError):
                sys.exit(READER_GONE_EXIT_CODE)
            _say(f'error: stdout cannot be written: {failure.reason.strerror}')
            sys.exit(USER_ERROR_EXIT_CODE)
        except UserError as error:
            _say(f'error: {error}')
            sys.exit(USER_ERROR_EXIT_CODE)
        except KeyboardInterrupt:
            _say('interrupted')
            sys.exit(INTERRUPTED_EXIT_CODE)

    return wrapped


class _OutputFailed(Exception):
    """stdout cannot be written. No OSError: whoever handles those means other files."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class _Output:
    """stdout, whose failures can be told from those of other files."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._reason: OSError | None = None
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise self._failed(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise self._failed(error) from error

    def close_run(self) -> None:
        """Write what is left, and tell of a failure that nobody heard of."""
        self.flush()
        if self._reason is not None:
            raise _OutputFailed(self._reason)

    def _failed(self, reason: OSError) -> _OutputFailed:
        self._reason = reason
        return _OutputFailed(reason)

    def discard(self) -> None:
        """Let the interpreter, which flushes stdout at its end, not fail again."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        # A copy that is being made has nothing yet.
        if name.startswith('_'):
            raise AttributeError(name)
        return getattr(self._stream, name)


def _say(text: str) -> None:
    # A name in it may hold line ends or the terminal's control characters.
    line = ''.join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if os.environ.get('RANK', '0') == '0':
        sys.stderr.write(f'{line}\n')
