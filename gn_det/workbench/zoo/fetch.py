"""The file behind an address that a config or a command gives for a checkpoint."""

from __future__ import annotations

from pathlib import Path

from gn_det.workbench.errors import UserError
from gn_det.workbench.zoo.download import download
from gn_det.workbench.zoo.sources import HUB_PREFIXES, WEB_PREFIXES, hub_address
from gn_det.workbench.zoo.web_address import without_password


def fetch(address: str) -> Path:
    """Download what `https://…`, or a name in one of mmengine's tables, stands for.

    In a distributed run the first process downloads while the others wait.

    Raises:
        UserError: for a name that no table has, and as `download`.
    """
    url = _url(address)
    if url.startswith(WEB_PREFIXES):
        return _download_once(url)
    from mmengine.runner.checkpoint import _get_mmengine_home

    # A table of the user's own in MMENGINE_HOME may name files beside it.
    return Path(_get_mmengine_home(), url)


def _url(address: str) -> str:
    if address.startswith(WEB_PREFIXES):
        return address
    if address.startswith(HUB_PREFIXES):
        return hub_address(address)
    from mmengine.runner import checkpoint

    scheme, name = address.split('://', 1)
    if scheme == 'mmcls':
        known = checkpoint.get_mmcls_models()
    else:
        known = checkpoint.get_torchvision_models()
    if name not in known:
        raise UserError(f'{address}: mmengine knows no model of that name')
    return known[name]


def _download_once(url: str) -> Path:
    """Download in the first process of a distributed run while the others wait.

    Each machine has a cache of its own, so the others then ask for the file as well.
    Whatever goes wrong in the first is raised in all, which would wait for it forever.
    """
    from mmengine.dist import broadcast_object_list, get_dist_info

    rank, world_size = get_dist_info()
    if world_size == 1:
        return download(url)
    failure: list[str | None] = [None]
    if rank == 0:
        try:
            download(url)
        except UserError as error:
            failure[0] = str(error)
        except Exception as error:
            failure[0] = (
                f'the first process cannot download {without_password(url)}: {error!r}'
            )
            broadcast_object_list(failure)
            raise
    broadcast_object_list(failure)
    if failure[0] is not None:
        raise UserError(failure[0])
    return download(url, progress=False)
