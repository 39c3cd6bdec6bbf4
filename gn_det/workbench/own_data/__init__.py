"""From a COCO-format set of one's own to a config that trains on it."""

from gn_det.workbench.own_data.init import Wishes, write_config

__all__ = ['Wishes', 'write_config']
