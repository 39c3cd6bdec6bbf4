"""Flags that several commands share, as mmdet's tools have them."""

from __future__ import annotations

import argparse

# `gn_det.workbench.evaluation` has them; a test compares.
EVALUATORS = ('faster-coco-eval', 'pycocotools')


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add the config and `--cfg-options`."""
    parser.add_argument(
        'config',
        metavar='CONFIG',
        help='a config file, the name of a model of the zoo, or PACKAGE::PATH of an '
        "installed package's config, such as mmdet::fcos/NAME.py",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action='extend',
        metavar='KEY=VALUE',
        help='override settings of the config; lists as key="[a,b]" or key=a,b. '
        'data_root=PATH moves the data of all dataloaders and evaluators',
    )


def add_group_norm(parser: argparse.ArgumentParser) -> None:
    """Add `--norm` and `--fuse`."""
    parser.add_argument(
        '--norm',
        choices=['gn'],
        help="replace Batch Norm, wherever the config's model has it, by FusedGN with "
        'the groups that fit each layer; pretrained weights that hold Batch Norm are '
        'named and left out',
    )
    parser.add_argument(
        '--fuse',
        action='store_true',
        help="let the model's Group Norms take in the activations and additions behind "
        "them; models of this project's configs do so without it",
    )


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing share besides the config."""
    parser.add_argument('--work-dir', help='folder for logs, checkpoints and results')
    parser.add_argument(
        '--channels-last',
        action='store_true',
        help='keep the model and its maps in channels-last memory format',
    )
    parser.add_argument(
        '--skip-broken-images',
        action='store_true',
        help='decode every image once, leave out those that cannot be used, with their '
        'objects, and list them; else the first ends the run',
    )
    add_trust(parser, 'load checkpoint files of this machine')
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='show all that is logged; else environment, config and hooks are in the '
        "work directory's log only",
    )
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed run were started',
    )
    # torch.distributed.launch passes it; torchrun sets LOCAL_RANK instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def add_evaluator(parser: argparse.ArgumentParser) -> None:
    """Add `--classwise` and `--evaluator`."""
    parser.add_argument('--classwise', action='store_true', help='AP of each class')
    parser.add_argument(
        '--evaluator', choices=EVALUATORS, help=f'default: {EVALUATORS[0]}'
    )


def add_trust(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--trust`; `what` is done with full rights."""
    parser.add_argument(
        '--trust',
        action='store_true',
        help=f'{what} with full rights, which lets them run code; for files of your '
        'own',
    )
