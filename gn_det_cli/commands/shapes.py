"""Generate the shapes set in COCO format."""

from __future__ import annotations

import argparse

from gn_det_cli.process import quiet_imports

# `ShapesSpec` has them; a test compares.
DEFAULTS = {
    'num_train': 600,
    'num_val': 100,
    'height': 128,
    'width': 128,
    'max_objects': 4,
    'crowd_fraction': 0.06,
    'seed': 0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Folder, number and size of the images."""
    parser.add_argument('root', help='folder to make, for example data/shapes')
    for name, default in DEFAULTS.items():
        parser.add_argument(
            f'--{name.replace("_", "-")}',
            type=type(default),
            default=default,
            help='default %(default)s',
        )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Generate the set unless it is there already."""
    with quiet_imports():
        from tqdm import tqdm

        from gn_det.workbench.datasets import ShapesSpec, generate_shapes, read_stamp
        from gn_det.workbench.errors import UserError

    chosen = {name: getattr(args, name) for name in DEFAULTS}
    try:
        spec = ShapesSpec(**chosen)
        before = read_stamp(args.root)
        written = generate_shapes(
            args.root,
            spec,
            progress=lambda todo: tqdm(todo, desc='shapes', unit='image'),
        )
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error
    if written and before is not None:
        print(f'replaced the set that was there ({_differences(before, chosen)})')
    verb = 'wrote' if written else 'kept'
    print(f'{verb} {args.root}: {spec.num_train} train and {spec.num_val} val images')


def _differences(before: dict[str, int | float], chosen: dict[str, int | float]) -> str:
    changed = [
        f'{name} {before.get(name, "unknown")}, now {value}'
        for name, value in chosen.items()
        if before.get(name) != value
    ]
    return '; '.join(changed) or 'of an older generator'
