"""The operators of `mmcv._ext` that the project supplies, by name.

Each has the name, the parameters and the return value that mmcv's Python wrappers
(onedl-mmcv 2.3.6, mmcv 2.1.0) expect of the compiled one. As there, results go into the
buffers passed in, and autograd does not see the call: mmcv's `autograd.Function`s call
the backward operators themselves. Tensors may live on any device for which torchvision
has the operator.
"""

from __future__ import annotations

from collections.abc import Callable

from gn_det.compat.operators.build_info import (
    get_compiler_version,
    get_compiling_cuda_version,
)
from gn_det.compat.operators.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from gn_det.compat.operators.nms import nms, nms_match, softnms
from gn_det.compat.operators.roi_align import roi_align_backward, roi_align_forward
from gn_det.compat.operators.roi_pool import roi_pool_backward, roi_pool_forward

__all__ = ['OPERATORS']

OPERATORS: dict[str, Callable] = {
    operator.__name__: operator
    for operator in (
        deform_conv_backward_input,
        deform_conv_backward_parameters,
        deform_conv_forward,
        get_compiler_version,
        get_compiling_cuda_version,
        modulated_deform_conv_backward,
        modulated_deform_conv_forward,
        nms,
        nms_match,
        roi_align_backward,
        roi_align_forward,
        roi_pool_backward,
        roi_pool_forward,
        softnms,
    )
}
