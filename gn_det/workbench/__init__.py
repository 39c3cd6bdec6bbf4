"""Runs, weights and pictures around the plugin: what the commands are made of.

Importing it lets mmengine load checkpoints through `gn_det.workbench.loading.loader`,
as weights and plain values only. The plugin, `import gn_det`, leaves the host's loader
as it is and imports nothing from here.
"""

from pathlib import Path

from gn_det.workbench.loading import loader


def _fetch(address: str) -> Path:
    # Only now: most runs need nothing from the network.
    from gn_det.workbench.zoo.fetch import fetch

    return fetch(address)


loader.install(_fetch)
