"""Mistakes of the caller."""

from __future__ import annotations


class UserError(Exception):
    """A mistake the user can mend; its text names the thing, the place, the way out.

    A command answers it with the line `error: …` and ends with this exit code.
    """

    exit_code = 2
