"""Weights of other projects and older versions, for mmdet 3, and back to detectron2.

One module per format says what a weight is called there; `consuming` takes every weight
exactly once and refuses a file that holds more, less or other than the model.
"""

from gn_det.workbench.zoo.convert.run import FORMATS, TARGETS, Report, convert_file

__all__ = ['FORMATS', 'TARGETS', 'Report', 'convert_file']
