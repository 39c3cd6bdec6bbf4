"""The background class: first in Detectron and mmdet 1, last in mmdet since 2.0."""

from __future__ import annotations

import torch
from torch import Tensor

_HEAD = 'roi_head'


def background_last(name: str, tensor: Tensor) -> Tensor:
    """Rows of a head's last layer in the order mmdet 3 has them.

    Class scores: row 0, the background's, goes to the end. Box deltas: the four rows of
    the background are dropped, and so is its row of mask logits.

    Args:
        name: the weight in mmdet; any but those three is left alone.
        tensor: as the file has it.
    """
    layer = name.rpartition('.')[0]
    if layer == f'{_HEAD}.bbox_head.fc_cls':
        return torch.cat([tensor[1:], tensor[:1]])
    if layer == f'{_HEAD}.bbox_head.fc_reg':
        return tensor[4:]
    if layer == f'{_HEAD}.mask_head.conv_logits':
        return tensor[1:]
    return tensor
