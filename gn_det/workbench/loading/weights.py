"""What counts as a weight, how it is named, and the meta that lies beside weights."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gn_det.workbench.errors import UserError

# `torch.compile` wraps any module, DistributedDataParallel the whole model.
_COMPILED = re.compile(r'(?<![^.])_orig_mod\.')
_PARALLEL = 'module.'
# More than any layer has, less than memory has.
_MOST_REPEATED_BYTES = 2**30


def plain_name(name: str) -> str:
    """The name of a weight in a model that is neither compiled nor distributed."""
    return _COMPILED.sub('', name).removeprefix(_PARALLEL)


def plain_names(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict with the names of a model that is neither compiled nor distributed.

    Raises:
        UserError: if a name is there twice, with and without a prefix.
    """
    names = [plain_name(key) if isinstance(key, str) else key for key in state]
    if names == list(state):
        return state
    if len(set(names)) < len(names):
        raise UserError(
            f'holds names twice, with and without "{_PARALLEL}" or "_orig_mod." before '
            'them'
        )
    renamed = OrderedDict(zip(names, state.values(), strict=True))
    # The versions of modules, by the modules' names.
    if metadata := getattr(state, '_metadata', None):
        renamed._metadata = OrderedDict(
            (plain_name(f'{key}.').removesuffix('.'), value)
            for key, value in metadata.items()
        )
    return renamed


def check_weight(tensor: Tensor, name: str) -> None:
    """See that a tensor holds its values one by one, so that it can be copied.

    Raises:
        UserError: if it is sparse or quantized, or a few values repeated to more than a
            GiB.
    """
    if tensor.is_quantized:
        raise UserError(f'holds a quantized tensor under {name}; dequantize it')
    if tensor.layout is not torch.strided:
        raise UserError(f'holds a sparse tensor under {name}; make it dense')
    size = tensor.numel() * tensor.element_size()
    if not tensor.is_meta and size > max(
        tensor.untyped_storage().nbytes(), _MOST_REPEATED_BYTES
    ):
        raise UserError(
            f'holds a tensor of {size / 2**30:.0f} GiB under {name}, far more than its '
            'values are'
        )


def check_values(state: dict[str, Tensor]) -> None:
    """See that weights have values.

    Raises:
        UserError: if a tensor is on the meta device, which knows shapes only.
    """
    for name, tensor in state.items():
        if tensor.is_meta:
            raise UserError(
                f'holds no values for {name}: it was on the meta device when it was '
                'saved'
            )


def meta_of(content: Any) -> dict[str, Any]:
    """The meta of a checkpoint; empty where weights stand alone.

    Raises:
        UserError: if it is no dict.
    """
    if not isinstance(content, dict) or 'state_dict' not in content:
        return {}
    meta = content.get('meta')
    if meta is None:
        return {}
    if not isinstance(meta, dict):
        raise UserError(f'holds a {type(meta).__name__} as its meta, not a dict')
    return dict(meta)
