"""Addresses of files, taken apart and as they may be shown."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from gn_det.workbench.errors import UserError


def split(url: str) -> SplitResult:
    """The parts of an `http(s)://` address.

    Raises:
        UserError: if it is none, as `http://[::1/file.pth`.
    """
    try:
        parts = urlsplit(url)
        # Read only now, a wrong port too.
        _ = parts.port
    except ValueError as error:
        shown = re.sub('//[^/]*@', '//', url)
        raise UserError(f'{shown!r} is no address: {error}') from error
    return parts


def host_of(url: str) -> str:
    """The host of an address, with its port where it names one."""
    return split(url).netloc.rpartition('@')[2]


def without_password(url: str) -> str:
    """The address as it may be shown and stored: without `user:password@`."""
    return split(url)._replace(netloc=host_of(url)).geturl()
