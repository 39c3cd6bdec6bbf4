"""Runs, weights and pictures around the plugin: what the commands are made of.

Importing it lets mmengine load checkpoints through `gn_det.workbench.zoo.loader`, as
weights and plain values only. The plugin, `import gn_det`, leaves the host's loader as
it is and imports nothing from here.
"""

from gn_det.workbench.zoo import loader

loader.install()
