"""Where the time of a step goes, by kind of kernel."""

import re
from collections import Counter
from collections.abc import Callable

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

# The first that matches a kernel's name (on a CPU: an operator's) decides. Optimiser
# kernels have an addition in their names, cuDNN's layout conversions a convolution's.
_KINDS = {
    'other': r'multi_tensor|foreach',
    'norm': r'group_?norm|batch_?norm|\bgn_\w+_kernel|RowwiseMoments|FusedParams'
    r'|InternalGradients|GammaBeta|bn_fw|bn_bw',
    'cast_layout': r'nchwToNhwc|nhwcToNchw|direct_copy|copy_kernel|Memcpy DtoD'
    r'|aten::copy_|aten::_to_copy|aten::contiguous|aten::clone',
    'conv': r'conv|gemm|xmma|cutlass|cudnn|fprop|wgrad|dgrad|addmm|aten::mm\b|linear',
    'add_relu': r'relu|clamp|threshold|functor_add|aten::add',
}
KINDS = ('norm', 'add_relu', 'cast_layout', 'conv', 'other')


def kind_of(name: str) -> str:
    """'norm', 'add_relu', 'cast_layout', 'conv' or 'other' by a kernel's name."""
    for kind, pattern in _KINDS.items():
        if re.search(pattern, name, re.IGNORECASE):
            return kind
    return 'other'


def time_by_kind(run: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of one call: of its kernels, or without a GPU of its operators."""
    activities = [ProfilerActivity.CPU]
    cuda = torch.cuda.is_available()
    if cuda:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        run()
        if cuda:
            torch.cuda.synchronize()
    microseconds: Counter[str] = Counter(dict.fromkeys(KINDS, 0.0))
    for event in profiler.key_averages():
        if not cuda:
            microseconds[kind_of(event.key)] += event.self_cpu_time_total
        # Annotations of spans are there as well; kernels alone are time once.
        elif event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            microseconds[kind_of(event.key)] += event.self_device_time_total
    return {kind: microseconds[kind] * 1e-3 for kind in KINDS}
