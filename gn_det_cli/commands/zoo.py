"""What is in the zoo: its models, their scores and weights."""

from __future__ import annotations

import argparse

# `gn_det.workbench.zoo.download` has it; a test compares.
TIMEOUT_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Commands of its own: list, show, download and page."""
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    listing = commands.add_parser('list', help='name the models, with their scores')
    listing.add_argument(
        'pattern',
        nargs='?',
        help='part of a config path, with * for anything: "gn/*3x"',
    )
    listing.set_defaults(run=run_list)

    show = commands.add_parser('show', help='settings, scores, weights and commands')
    show.add_argument('name', help='name of a model, or its config')
    show.set_defaults(run=run_show)

    page = commands.add_parser('page', help='print model_zoo.md, made of the metafiles')
    page.set_defaults(run=run_page)

    getting = commands.add_parser('download', help='get weights, checked by their hash')
    _add_download(getting)
    getting.set_defaults(run=run_download)


def _add_download(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'sources',
        nargs='+',
        metavar='NAME|URL',
        help='a model of the zoo, open-mmlab://KEY, or an address',
    )
    parser.add_argument(
        '--dest', metavar='FOLDER', help="default: torch's hub folder, as mmengine's"
    )
    parser.add_argument('--sha256', help='expected digest, or its first digits')
    parser.add_argument('--md5', help='the same for md5')
    parser.add_argument(
        '--mirror',
        action='append',
        metavar='FROM=TO',
        help='try addresses that start with FROM at TO first; may be repeated. '
        'GN_DET_MIRRORS holds such pairs too',
    )
    parser.add_argument(
        '--offline',
        action='store_true',
        help='use files that are already there, as GN_DET_OFFLINE=1 does',
    )
    parser.add_argument(
        '--timeout',
        type=float,
        default=TIMEOUT_S,
        metavar='SECONDS',
        help='how long a host may be silent (default: %(default)g)',
    )


def run_download(args: argparse.Namespace) -> None:
    """Get files, and name them."""
    from gn_det.workbench.zoo.download import download_all

    paths = download_all(
        args.sources,
        args.dest,
        sha256=args.sha256,
        md5=args.md5,
        mirrors=args.mirror,
        offline=args.offline,
        timeout_s=args.timeout,
    )
    for path in paths:
        print(path, flush=True)


def run_list(args: argparse.Namespace) -> None:
    """Print the table of models."""
    from gn_det.workbench.zoo.index import matching
    from gn_det.workbench.zoo.listing import table

    print(table(matching(args.pattern)))


def run_show(args: argparse.Namespace) -> None:
    """Print all that is known of a model."""
    from gn_det.workbench.zoo.index import find
    from gn_det.workbench.zoo.listing import describe

    print(describe(find(args.name)))


def run_page(args: argparse.Namespace) -> None:
    """Print the page of all models."""
    from gn_det.workbench.zoo.index import load_index
    from gn_det.workbench.zoo.page import render

    print(render(load_index()), end='')
