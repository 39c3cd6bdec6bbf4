"""Generate the shapes set, for example `python tools/make_shapes.py data/shapes`."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields

from tqdm import tqdm

from gn_det.workbench.datasets import ShapesSpec, generate_shapes, read_stamp
from gn_det.workbench.errors import UserError, report_errors


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('root', help='folder to make, for example data/shapes')
    for field in fields(ShapesSpec):
        parser.add_argument(
            f'--{field.name.replace("_", "-")}',
            type=type(field.default),
            default=field.default,
            help=f'default {field.default}',
        )
    return parser.parse_args()


def differences(before: dict[str, int | float], spec: ShapesSpec) -> str:
    now = asdict(spec)
    changed = [
        f'{name} {before.get(name, "unknown")}, now {value}'
        for name, value in now.items()
        if before.get(name) != value
    ]
    return '; '.join(changed) or 'of an older generator'


@report_errors
def main() -> None:
    args = vars(parse_args())
    root = args.pop('root')
    try:
        spec = ShapesSpec(**args)
        before = read_stamp(root)
        written = generate_shapes(
            root, spec, progress=lambda todo: tqdm(todo, desc='shapes', unit='image')
        )
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    verb = 'wrote' if written else 'kept'
    if written and before is not None:
        print(f'replaced the set that was there ({differences(before, spec)})')
    print(f'{verb} {root}: {spec.num_train} train and {spec.num_val} val images')


if __name__ == '__main__':
    main()
