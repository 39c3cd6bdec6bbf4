"""Strip a checkpoint of what only its training needs and put the first digits of its
sha256 into the name."""

from __future__ import annotations

import argparse

from gn_det_cli.arguments import add_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Source and target."""
    parser.add_argument('source', metavar='IN', help='checkpoint of a training run')
    parser.add_argument(
        'prefix',
        metavar='OUT_PREFIX',
        help='the file becomes OUT_PREFIX-<sha256[:8]>.pth',
    )
    parser.add_argument(
        '--safetensors', action='store_true', help='write .safetensors instead of .pth'
    )
    add_trust(parser, 'read IN')
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Publish, and say what was left out."""
    from gn_det.workbench.zoo.publish import publish

    path, dropped = publish(
        args.source, args.prefix, safetensors=args.safetensors, trust=args.trust
    )
    if dropped:
        print(f'left out: {", ".join(dropped)}')
    print(path)
