"""From a model's name or an address to the file it stands for."""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import Digest
from gn_det.workbench.zoo.web_address import split, without_password

HUB_PREFIXES = ('open-mmlab://', 'openmmlab://')
WEB_PREFIXES = ('http://', 'https://')
# Most systems allow 255, of which the partial file's note needs some.
_LONGEST_NAME_BYTES = 240


@dataclass(frozen=True)
class Source:
    """A file to download: its address, its name in the cache, what it must hold."""

    url: str
    file_name: str
    digests: tuple[Digest, ...]
    """All that are known of it, one of an algorithm; it must have each."""


def resolve(source: str, sha256: str | None = None, md5: str | None = None) -> Source:
    """The file a model's name, an `open-mmlab://KEY` or an address stands for.

    The sha256 is the caller's, else the zoo's, else the one in the file's name, and so
    is the md5. A file whose name holds none gets a name of its own in the cache,
    because many models are called `model_final.pkl`.

    Raises:
        UserError: for an unknown name, a model without published weights, an address
            without a file name, or a digest that is none.
    """
    if source.startswith(HUB_PREFIXES):
        return _from_address(hub_address(source), sha256, md5)
    if source.startswith(WEB_PREFIXES):
        return _from_address(source, sha256, md5)
    if '://' in source:
        raise UserError(
            f'{without_password(source)}: only http://, https:// and open-mmlab:// '
            'addresses are known'
        )
    return _from_zoo(source, sha256, md5)


def hub_address(source: str) -> str:
    """What mmengine's table holds for `open-mmlab://KEY`: an address, or a file.

    Raises:
        UserError: if it has no such key; the nearest are named.
    """
    from mmengine.runner.checkpoint import (
        get_deprecated_model_names,
        get_external_models,
    )

    _, key = source.split('://', 1)
    key = get_deprecated_model_names().get(key, key)
    known = get_external_models()
    if key not in known:
        near = difflib.get_close_matches(key, known, n=3)
        hint = f'; did you mean {" or ".join(near)}?' if near else ''
        raise UserError(f'{source}: mmengine knows no model of that name{hint}')
    return known[key]


def _from_zoo(name: str, sha256: str | None, md5: str | None) -> Source:
    from gn_det.workbench.zoo import index

    try:
        model = index.find(name)
    except UserError:
        # Only now: a config of the zoo may be named by its path, where it is a file.
        if os.path.isfile(name):
            raise UserError(
                f'{name!r} is a file of this machine, not a name or an address'
            ) from None
        raise
    weights = model.weights
    if weights is None:
        raise UserError(
            f'{model.name} has no published weights; train it with {model.config}'
        )
    return _from_address(
        weights.url,
        weights.sha256 if sha256 is None else sha256,
        weights.md5 if md5 is None else md5,
        model.name,
    )


def _from_address(
    url: str, sha256: str | None, md5: str | None, model: str | None = None
) -> Source:
    path = PurePosixPath(unquote(split(url).path))
    if not split(url).hostname or not path.suffix:
        raise UserError(f'{without_password(url)!r} does not end in the name of a file')
    if not path.name.isprintable():
        raise UserError(f'{path.name!r} is no name for a file')
    in_name = Digest.from_name(path.name)
    known = {in_name.algorithm: in_name} if in_name else {}
    for algorithm, value in (('sha256', sha256), ('md5', md5)):
        if value is not None:
            known[algorithm] = Digest.parse(algorithm, value)
    if in_name is not None:
        file_name = path.name
    elif model is not None:
        file_name = model + path.suffix
    else:
        of_url = hashlib.sha256(url.encode()).hexdigest()[:8]
        file_name = f'{path.stem}.url{of_url}{path.suffix}'
    if len(os.fsencode(file_name)) > _LONGEST_NAME_BYTES:
        raise UserError(
            f'{file_name[:40]!r}… is longer than the {_LONGEST_NAME_BYTES} bytes that '
            'the name of a file may have'
        )
    return Source(url, file_name, tuple(known.values()))
