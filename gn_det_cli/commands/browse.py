"""Write an HTML sheet of what a model is fed; images after the pipeline, as they are
padded and normalised, with their boxes and masks."""

from __future__ import annotations

import argparse

from gn_det_cli.arguments import add_config
from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which images, and the page."""
    add_config(parser)
    parser.add_argument(
        '--split',
        choices=['train', 'val', 'test'],
        default='train',
        help='default %(default)s',
    )
    parser.add_argument(
        '--number', type=int, default=16, help='of images; default %(default)s'
    )
    parser.add_argument('--out', default='browse.html', help='default %(default)s')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the page, and name it."""
    with quiet_imports():
        from gn_det.workbench.errors import UserError
        from gn_det.workbench.inputs.config import load_config
        from gn_det.workbench.inspection.sheet import write_sheet
        from gn_det.workbench.runtime.arguments import read_options
        from gn_det.workbench.runtime.outputs import check_file
    if args.number < 1:
        raise UserError(f'--number: expected 1 or more, got {args.number}')
    check_file(args.out, '--out')
    cfg = load_config(args.config, read_options(args.cfg_options))
    count = write_sheet(cfg, args.split, args.number, args.out)
    print(f'{args.out}: {count} images')
