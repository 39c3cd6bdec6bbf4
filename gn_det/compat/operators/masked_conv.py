"""The two halves of mmcv's masked convolution: a convolution at chosen pixels only.

mmcv multiplies the columns by the weight in between; there is no backward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Fill `col` [C · kh · kw, n] with the windows of `im` [1, C, H, W] at n pixels.

    The pixels (y, x) are those of the output, of stride 1; beyond the image is 0.
    """
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    windows = padded[:, rows[:, None], columns[None]]  # [C, kh, kw, n]
    col.copy_(windows.flatten(0, 2))


@torch.no_grad()
def masked_col2im_forward(
    col: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    im: Tensor,
    height: int,
    width: int,
    channels: int,
) -> None:
    """Write the columns of `col` [C, n] to their pixels of `im` [1, C, H, W]."""
    im[0, :, mask_h_idx, mask_w_idx] = col
