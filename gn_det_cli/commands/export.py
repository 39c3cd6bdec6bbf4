"""Write a two-stage detector as one ONNX file."""

from __future__ import annotations

import argparse

from gn_det_cli.arguments import add_config
from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Model, file, and the size of its images."""
    add_config(parser)
    parser.add_argument('out', metavar='OUT.onnx', help='the file to write')
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        nargs='?',
        help="file or address; default: the zoo's weights for this config",
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        default=(800, 1333),
        metavar=('HEIGHT', 'WIDTH'),
        help='of the images in pixels, which the graph fixes; default 800 1333',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Export."""
    with quiet_imports():
        from gn_det.workbench.errors import UserError
        from gn_det.workbench.inference import load_detector
        from gn_det.workbench.onnx_export import export_onnx
        from gn_det.workbench.runtime.arguments import read_options
    if min(args.size) < 1:
        raise UserError(f'--size: expected pixels, got {args.size[0]} {args.size[1]}')
    options = read_options(args.cfg_options)
    detector = load_detector(args.config, args.checkpoint, 'cpu', options)
    export_onnx(detector.model, args.out, tuple(args.size))
    print(f'wrote {args.out}')
