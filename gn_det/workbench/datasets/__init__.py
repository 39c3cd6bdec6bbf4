"""Data the project makes itself; COCO is read by mmdet's own `CocoDataset`."""

from gn_det.workbench.datasets.shapes import ShapesSpec, generate_shapes, read_stamp

__all__ = ['ShapesSpec', 'generate_shapes', 'read_stamp']
