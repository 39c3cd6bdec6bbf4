"""Where the same file can be had: hosts that carry each other's folders."""

from __future__ import annotations

import os
from collections.abc import Iterable

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.web_address import split

MIRRORS_VARIABLE = 'GN_DET_MIRRORS'

# Folders that hold the same files. The certificate of the first host expired in 2025
# (mmdetection issue 12396).
_SAME = (
    (
        'https://download.openmmlab.com/mmdetection/v2.0/',
        'https://mmassets.onedl.ai/mmdetection/v2.0/',
    ),
    (
        'https://download.openmmlab.com/pretrain/third_party/',
        'https://mmassets.onedl.ai/pretrain/third_party/',
    ),
)


def addresses(url: str, mirrors: Iterable[str] | None = None) -> list[str]:
    """The addresses of a file in the order in which they are tried.

    First the caller's mirrors, then those of the environment variable
    `GN_DET_MIRRORS`, then the address itself, then the hosts known to carry it.

    Args:
        url: the address of the file.
        mirrors: `FROM=TO` each, where FROM is the start of addresses that TO replaces.

    Raises:
        UserError: if a mirror is not of that form, or leads to no address.
    """
    named = [*(mirrors or ()), *os.environ.get(MIRRORS_VARIABLE, '').split()]
    found = [
        target + url[len(source) :]
        for source, target in map(_parse, named)
        if url.startswith(source)
    ]
    found.append(url)
    for folders in _SAME:
        for folder in folders:
            if url.startswith(folder):
                found += [other + url[len(folder) :] for other in folders]
    return list(dict.fromkeys(found))


def _parse(mirror: str) -> tuple[str, str]:
    source, _, target = mirror.partition('=')
    web = ('http://', 'https://')
    if not (source.startswith(web) and target.startswith(web)):
        raise UserError(
            f'{mirror!r} is no mirror; write it FROM=TO with the start of two '
            'addresses, as https://one.example/zoo/=https://other.example/zoo/'
        )
    split(target)
    return source, target
