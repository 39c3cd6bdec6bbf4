"""Detect in an image, in all images of a folder, or in a video; write painted images,
and all objects to predictions.json in COCO form. Its categories have the ids of COCO
where the classes are the 80 of COCO, and otherwise 1, 2, … in the order of the classes;
it lists them."""

from __future__ import annotations

import argparse

from gn_det_cli.arguments import add_config, add_group_norm
from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at, with which model."""
    parser.add_argument('source', metavar='IMG|DIR|VIDEO')
    add_config(parser)
    parser.add_argument(
        'checkpoint',
        metavar='CHECKPOINT',
        nargs='?',
        help="file or address; default: the zoo's weights for this config",
    )
    parser.add_argument('--out-dir', default='outputs', help='default %(default)s')
    parser.add_argument(
        '--device', help='such as cpu or cuda:1; default: the GPU if there is one'
    )
    parser.add_argument(
        '--batch-size',
        type=int,
        default=1,
        help='most images at once; only those padded to one size share a batch, which '
        'leaves the results as they are alone; default %(default)s',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='objects that score less are left out; default %(default)s',
    )
    add_group_norm(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Detect, and say how much was found."""
    with quiet_imports():
        from tqdm import tqdm

        from gn_det.workbench.errors import UserError
        from gn_det.workbench.inference import check_places, load_detector, run_demo
        from gn_det.workbench.runtime.arguments import read_options
        from gn_det.workbench.runtime.outputs import check_folder
    if args.batch_size < 1:
        raise UserError(f'--batch-size: expected 1 or more, got {args.batch_size}')
    if not 0 <= args.score_thr <= 1:
        raise UserError(f'--score-thr: expected 0 to 1, got {args.score_thr}')
    check_places(args.source, args.out_dir)
    check_folder(args.out_dir, '--out-dir')
    options = read_options(args.cfg_options)
    detector = load_detector(
        args.config, args.checkpoint, args.device, options, args.norm, args.fuse
    )
    done = run_demo(
        detector,
        args.source,
        args.out_dir,
        args.score_thr,
        args.batch_size,
        lambda items, name, total: tqdm(
            items, desc=name, total=total or None, disable=None
        ),
    )
    if done.results is None:
        raise UserError(
            f'nothing in {args.source} could be read as an image or a video'
        )
    print(
        f'{done.objects} objects in {len(done.painted)} files, '
        f'{len(done.skipped)} skipped; see {args.out_dir}'
    )
