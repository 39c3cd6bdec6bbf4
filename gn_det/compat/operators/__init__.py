"""The operators of `mmcv._ext` that the project supplies, by name.

Each has the name, the parameters and the return value that mmcv's Python wrappers
(onedl-mmcv 2.3.6, mmcv 2.1.0) expect of the compiled one. As there, results go into the
buffers passed in, and autograd does not see the call: mmcv's `autograd.Function`s call
the backward operators themselves. They are those that mmdet's models reach
(docs/operators.md), and each runs wherever torch and torchvision do.
"""

from __future__ import annotations

from collections.abc import Callable

from gn_det.compat.operators.build_info import (
    get_compiler_version,
    get_compiling_cuda_version,
)
from gn_det.compat.operators.carafe import (
    carafe_backward,
    carafe_forward,
    carafe_naive_backward,
    carafe_naive_forward,
)
from gn_det.compat.operators.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from gn_det.compat.operators.deform_roi_pool import (
    deform_roi_pool_backward,
    deform_roi_pool_forward,
)
from gn_det.compat.operators.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from gn_det.compat.operators.masked_conv import (
    masked_col2im_forward,
    masked_im2col_forward,
)
from gn_det.compat.operators.ms_deform_attn import (
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from gn_det.compat.operators.nms import line_nms_forward, nms, nms_match, softnms
from gn_det.compat.operators.roi_align import roi_align_backward, roi_align_forward
from gn_det.compat.operators.sync_bn import (
    sync_bn_backward_data,
    sync_bn_backward_param,
    sync_bn_forward_mean,
    sync_bn_forward_output,
    sync_bn_forward_var,
)

__all__ = ['OPERATORS']

OPERATORS: dict[str, Callable] = {
    operator.__name__: operator
    for operator in (
        carafe_backward,
        carafe_forward,
        carafe_naive_backward,
        carafe_naive_forward,
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        deform_conv_forward,
        deform_roi_pool_backward,
        deform_roi_pool_forward,
        get_compiler_version,
        get_compiling_cuda_version,
        line_nms_forward,
        masked_col2im_forward,
        masked_im2col_forward,
        modulated_deform_conv_backward,
        modulated_deform_conv_forward,
        ms_deform_attn_backward,
        ms_deform_attn_forward,
        nms,
        nms_match,
        roi_align_backward,
        roi_align_forward,
        sigmoid_focal_loss_backward,
        sigmoid_focal_loss_forward,
        softmax_focal_loss_backward,
        softmax_focal_loss_forward,
        softnms,
        sync_bn_backward_data,
        sync_bn_backward_param,
        sync_bn_forward_mean,
        sync_bn_forward_output,
        sync_bn_forward_var,
    )
}
