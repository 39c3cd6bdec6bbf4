"""What `mmcv._ext` says about its build; `mmcv.utils.collect_env` logs it."""

from __future__ import annotations

import torchvision


def get_compiler_version() -> str:
    """Name what stands in for the compiled operators."""
    return f'not compiled (gn_det on torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """'not available', as an mmcv compiled without CUDA says."""
    return 'not available'
