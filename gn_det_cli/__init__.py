"""The command `gn-det`: what it is called with, and how it ends.

A package of its own beside `gn_det`, because importing anything of `gn_det` imports
torch, and `gn-det --help` should not take seconds. Nothing here imports `gn_det` before
a command runs.
"""
