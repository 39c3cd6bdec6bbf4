"""The zoo: which models there are, what was published about them, their weights."""

from gn_det.workbench.zoo.index import Model, Weights, find, load_index

__all__ = ['Model', 'Weights', 'find', 'load_index']
