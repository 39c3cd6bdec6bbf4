"""Convert weights of other projects and older versions to mmdet 3."""

from __future__ import annotations

import argparse

from gn_det_cli.arguments import add_trust

# `gn_det.workbench.zoo.convert` has them; a test compares.
FORMATS = (
    'detectron', 'detectron2', 'mmdet1', 'mmdet2', 'mmdet', 'torchvision', 'timm'
)  # fmt: skip
TARGETS = ('mmdet', 'detectron2')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source, target and their formats."""
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
    add_trust(parser, 'read SRC')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Convert, and say what was done."""
    from gn_det.workbench.zoo.convert import convert_file

    given = vars(args)
    del given['run']
    print(convert_file(**given))
