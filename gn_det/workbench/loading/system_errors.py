"""What the system refuses, as a mistake of the caller that can be mended."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from gn_det.workbench.errors import UserError

_Parameters = ParamSpec('_Parameters')
_Result = TypeVar('_Result')


def name_refused_files(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """Decorate what works with files: an `OSError` becomes a `UserError`.

    It names the file and the system's reason: no permission, a name that is too long, a
    folder where a file should be.
    """

    @functools.wraps(function)
    def wrapped(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        try:
            return function(*args, **kwargs)
        except OSError as error:
            reason = error.strerror or error
            if error.filename is None:
                raise UserError(f'the system refuses: {reason}') from error
            raise UserError(f'cannot use {error.filename}: {reason}') from error

    return wrapped
