"""Make a checkpoint fit to be given away: `python tools/publish.py IN OUT_PREFIX`."""

from __future__ import annotations

import argparse

from gn_det.workbench.errors import report_errors
from gn_det.workbench.zoo.publish import publish


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Strip a checkpoint of what only its training needs and put the '
        'first digits of its sha256 into the name'
    )
    parser.add_argument('source', metavar='IN', help='checkpoint of a training run')
    parser.add_argument(
        'prefix',
        metavar='OUT_PREFIX',
        help='the file becomes OUT_PREFIX-<sha256[:8]>.pth',
    )
    parser.add_argument(
        '--safetensors', action='store_true', help='write .safetensors instead of .pth'
    )
    parser.add_argument(
        '--trust',
        action='store_true',
        help='read IN with full rights, which lets it run any code; for your own files',
    )
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    path, dropped = publish(
        args.source, args.prefix, safetensors=args.safetensors, trust=args.trust
    )
    if dropped:
        print(f'left out: {", ".join(dropped)}')
    print(path)


if __name__ == '__main__':
    main()
