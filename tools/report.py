"""`gn-det report`, called as mmdet calls its tools."""

from __future__ import annotations

import sys

from gn_det_cli.main import main

if __name__ == '__main__':
    main(['report', *sys.argv[1:]])
