"""Look at a set in COCO's format, and write the config that trains on it."""

from __future__ import annotations

import argparse

from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The set, and what is not to be looked for in it."""
    parser.add_argument(
        'data', metavar='DATA', help='folder, or the annotation file to train on'
    )
    parser.add_argument(
        '--images', metavar='FOLDER', help='where the images are, if not found'
    )
    parser.add_argument(
        '--val',
        metavar='FILE',
        help='annotation file to validate on; where there is none, a tenth of the '
        'images is held out',
    )
    parser.add_argument('--out', metavar='CONFIG.py', help='default: configs/NAME.py')
    parser.add_argument(
        '--base',
        metavar='CONFIG',
        help='config to begin with, as of train; default: Mask R-CNN R-50 where all '
        'objects have masks, else Faster R-CNN R-50',
    )
    parser.add_argument(
        '--load-from',
        metavar='NAME|CHECKPOINT',
        help="detector to start from; default: the base's published weights",
    )
    parser.add_argument(
        '--epochs', type=int, help='default: by the size of the set, 12 to 100'
    )
    parser.add_argument(
        '--overwrite', action='store_true', help='replace what was written before'
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write, and say what was found."""
    with quiet_imports():
        from gn_det.workbench.errors import UserError
        from gn_det.workbench.own_data import Wishes, write_config
    if args.epochs is not None and args.epochs < 1:
        raise UserError(f'--epochs: expected 1 or more, got {args.epochs}')
    wishes = Wishes(
        images=args.images,
        val=args.val,
        base=args.base,
        load_from=args.load_from,
        epochs=args.epochs,
        overwrite=args.overwrite,
    )
    for line in write_config(args.data, args.out, wishes):
        print(line)
