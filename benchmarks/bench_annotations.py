"""What the check of annotations costs at the size of COCO's train2017.

    python -m benchmarks.bench_annotations [--images 118287] [--objects 860001]

A generated file of that many images and objects, with outlines of as many points as
COCO's have in the mean, is loaded by mmdet's `CocoDataset` as it is, and then checked
and loaded from what the check has parsed, each in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np

from gn_det.workbench.inputs import annotations

_WAYS = {
    'mmdet alone': 'load',
    'check alone': 'check',
    'check, and mmdet from it': 'check load',
}
_CLASSES = [f'class {number}' for number in range(80)]
# Numbers of an outline: the mean of train2017's is near it.
_NUMBERS = 46


def write_file(path: Path, images: int, objects: int) -> None:
    """Write annotations of one size for all images, in the form of COCO's."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 300, (objects, 2)).round(2)
    sides = rng.uniform(10, 150, (objects, 2)).round(2)
    turns = np.linspace(0, 2 * np.pi, _NUMBERS // 2, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], 1) / 2 + 0.5
    of_image = rng.integers(1, images + 1, objects)
    of_class = rng.integers(1, 81, objects)
    with open(path, 'w') as file:
        records = [
            dict(id=i, file_name=f'{i:012}.jpg', height=480, width=640)
            for i in range(1, images + 1)
        ]
        categories = [dict(id=k, name=name) for k, name in enumerate(_CLASSES, 1)]
        head = json.dumps(dict(images=records, categories=categories))
        file.write(f'{head[:-1]}, "annotations": [')
        for number in range(objects):
            outline = (corners[number] + circle * sides[number]).round(2)
            record = dict(
                id=number + 1,
                image_id=int(of_image[number]),
                category_id=int(of_class[number]),
                bbox=[*corners[number].tolist(), *sides[number].tolist()],
                area=float(sides[number].prod()),
                iscrowd=0,
                segmentation=[outline.ravel().tolist()],
            )
            file.write((', ' if number else '') + json.dumps(record))
        file.write(']}')


def measure(path: str, steps: str) -> float:
    """Seconds for the steps, imports excepted."""
    from mmdet.datasets import CocoDataset

    start = time.perf_counter()
    if 'check' in steps:
        content, _ = annotations.check_annotations(path, ['bbox', 'segm'])
        annotations.check_classes(path, content, _CLASSES, 'the dataset')
        annotations.hand_on(path, content, 1)
        annotations.share_with_mmdet()
        del content
    if 'load' in steps:
        CocoDataset(
            ann_file=path,
            data_prefix=dict(img=''),
            metainfo=dict(classes=_CLASSES),
            pipeline=[],
        )
    return time.perf_counter() - start


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--images', type=int, default=118_287)
    parser.add_argument('--objects', type=int, default=860_001)
    parser.add_argument('--measure', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(f'seconds {measure(*args.measure):.2f}')
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'instances.json'
        write_file(path, args.images, args.objects)
        print(
            f'{args.images} images, {args.objects} objects, '
            f'{path.stat().st_size / 2**20:.0f} MiB; Python '
            f'{platform.python_version()}, NumPy {np.__version__}, msgspec '
            f'{version("msgspec")}, pycocotools {version("pycocotools")}'
        )
        for name, steps in _WAYS.items():
            command = [sys.executable, '-m', 'benchmarks.bench_annotations']
            done = subprocess.run(
                [*command, '--measure', str(path), steps],
                capture_output=True,
                text=True,
                check=True,
            )
            (line,) = [s for s in done.stdout.splitlines() if s.startswith('seconds')]
            print(f'{name:26} {line.split()[1]} s', flush=True)


if __name__ == '__main__':
    main()
