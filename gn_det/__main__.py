"""`python -m gn_det`: the command `gn-det`, also for torchrun's `-m`."""

from __future__ import annotations

from gn_det_cli.main import main

if __name__ == '__main__':
    main()
