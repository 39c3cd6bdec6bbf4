"""Convert weights: `python tools/convert.py SRC DST --from detectron`."""

from __future__ import annotations

import argparse

from gn_det.workbench.errors import report_errors
from gn_det.workbench.zoo.convert import FORMATS, TARGETS, convert_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Convert weights of other projects and older versions to mmdet 3'
    )
    parser.add_argument('source', metavar='SRC', help='.pkl, .pth or .safetensors file')
    parser.add_argument('target', metavar='DST', help='.pth or .safetensors file')
    parser.add_argument(
        '--from', dest='from_format', choices=FORMATS, required=True, help='of SRC'
    )
    parser.add_argument(
        '--to', dest='to_format', choices=TARGETS, default='mmdet', help='of DST'
    )
    parser.add_argument(
        '--norm', choices=['gn'], help='turn Batch Norm into a start for Group Norm'
    )
    parser.add_argument(
        '--num-groups', type=int, default=32, help='of that Group Norm; default 32'
    )
    parser.add_argument(
        '--trust',
        action='store_true',
        help='read SRC with full rights, which lets it run code; for your own files',
    )
    return parser.parse_args()


@report_errors
def main() -> None:
    report = convert_file(**vars(parse_args()))
    print(report)


if __name__ == '__main__':
    main()
