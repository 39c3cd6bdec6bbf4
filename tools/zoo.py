"""What is in the zoo: `python tools/zoo.py list [PATTERN]`, `show NAME`, `download`."""

from __future__ import annotations

import argparse
from pathlib import Path

from gn_det.workbench.errors import report_errors
from gn_det.workbench.zoo.download import TIMEOUT_S, download_all
from gn_det.workbench.zoo.index import find, load_index, matching
from gn_det.workbench.zoo.listing import describe, table
from gn_det.workbench.zoo.page import write

REPOSITORY = Path(__file__).resolve().parent.parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    listing = commands.add_parser('list', help='name the models, with their figures')
    listing.add_argument(
        'pattern',
        nargs='?',
        help='part of a config path, with * for anything: "gn/*3x"',
    )
    listing.set_defaults(run=run_list)

    show = commands.add_parser('show', help='settings, figures, weights and commands')
    show.add_argument('name', help='name of a model, or its config')
    show.set_defaults(run=run_show)

    page = commands.add_parser('page', help='write model_zoo.md from the metafiles')
    page.set_defaults(run=run_page)

    getting = commands.add_parser('download', help='get weights, checked by their hash')
    add_download_arguments(getting)
    getting.set_defaults(run=run_download)
    return parser.parse_args()


def add_download_arguments(parser: argparse.ArgumentParser) -> None:
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
    print(table(matching(args.pattern)))


def run_show(args: argparse.Namespace) -> None:
    print(describe(find(args.name)))


def run_page(args: argparse.Namespace) -> None:
    print(f'wrote {write(load_index(), REPOSITORY)}')


@report_errors
def main() -> None:
    args = parse_args()
    args.run(args)


if __name__ == '__main__':
    main()
