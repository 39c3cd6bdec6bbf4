"""Say what a config's model or a checkpoint is; parameters, multiply-adds, norms and
what is fused, memory kept for backward, classes, and where weights come from."""

from __future__ import annotations

import argparse

from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at."""
    parser.add_argument(
        'config',
        metavar='CONFIG|CHECKPOINT',
        help='a config as of train, or a .pth, .pt or .safetensors file',
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='of an image in pixels; default: as the test pipeline resizes',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config',
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Print the rows."""
    with quiet_imports():
        from gn_det.workbench.inputs.config import load_config
        from gn_det.workbench.inspection.checkpoint_info import (
            SUFFIXES,
            checkpoint_rows,
        )
        from gn_det.workbench.inspection.model_info import check_size, model_rows
        from gn_det.workbench.runtime.arguments import read_options
    if args.config.endswith(SUFFIXES):
        rows = checkpoint_rows(args.config)
    else:
        size = check_size(args.size)
        rows = model_rows(
            load_config(args.config, read_options(args.cfg_options)), size
        )
    for name, text in list(rows):
        print(f'{name:18} {text}')
