"""What a norm is called in a block, as mmcv abbreviates it."""

from __future__ import annotations

import re


def group_norm_name(name: str) -> str:
    """The name of a Group Norm in the place of a Batch Norm: `…bn1` → `…gn1`."""
    return re.sub(r'(^|\.)bn(\d*)$', r'\1gn\2', name)
