"""Looking at what a config trains, before it does: its images, its model."""

from gn_det.workbench.inspection.sheet import write_sheet

__all__ = ['write_sheet']
