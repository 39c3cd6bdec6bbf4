"""From a model's name or an address to the file it stands for."""

from __future__ import annotations

import difflib
import hashlib
import os
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from gn_det.errors import UserError
from gn_det.zoo.digests import Digest

HUB_PREFIXES = ('open-mmlab://', 'openmmlab://')
WEB_PREFIXES = ('http://', 'https://')


@dataclass(frozen=True)
class Source:
    """A file to download: its address, its name in the cache, what it must hold."""

    url: str
    file_name: str
    digest: Digest | None


def resolve(source: str, sha256: str | None = None, md5: str | None = None) -> Source:
    """The file a model's name, an `open-mmlab://KEY` or an address stands for.

    The digest is the caller's, else the zoo's, else the one in the file's name. A file
    whose name holds none gets a name of its own in the cache, because many models are
    called `model_final.pkl`.

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
            f'{source}: only http://, https:// and open-mmlab:// addresses are known'
        )
    if os.path.isfile(source):
        raise UserError(f'{source} is a file of this machine, not a name or an address')
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
    from gn_det.zoo import index

    model = index.find(name)
    weights = model.weights
    if weights is None:
        raise UserError(
            f'{model.name} has no published weights; train it with {model.config}'
        )
    return _from_address(
        weights.url, sha256 or weights.sha256, md5 or weights.md5, model.name
    )


def _from_address(
    url: str, sha256: str | None, md5: str | None, model: str | None = None
) -> Source:
    path = PurePosixPath(unquote(urlsplit(url).path))
    if not urlsplit(url).hostname or not path.suffix:
        raise UserError(f'{url} does not end in the name of a file')
    in_name = Digest.from_name(path.name)
    if sha256:
        digest = Digest.parse('sha256', sha256)
    elif md5:
        digest = Digest.parse('md5', md5)
    else:
        digest = in_name
    if in_name is not None:
        file_name = path.name
    elif model is not None:
        file_name = model + path.suffix
    else:
        of_url = hashlib.sha256(url.encode()).hexdigest()[:8]
        file_name = f'{path.stem}.url{of_url}{path.suffix}'
    return Source(url, file_name, digest)
