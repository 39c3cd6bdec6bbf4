"""300 mutated annotation files and 100 result files, as each tool looks at them.

    python -m tests.attacks.annotations [COUNT]

A file that is right is mutated at a place drawn at random, and the check that train,
test and eval share looks at it. What it accepts is loaded by mmdet's dataset,
with masks, and evaluated; a trace there counts as one of ours. An accepted file is
silent if no note says what was mutated and what is loaded or evaluated is not what the
file without the mutation gives. A value of another record, and a crowd instead of an
object, can be meant: such a file is accepted as it says.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gn_det.workbench.datasets import ShapesSpec, generate_shapes
from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.coco_scores import Comparison
from gn_det.workbench.inputs.annotations import (
    check_annotations,
    check_classes,
    check_results,
    read_results,
)

CLASSES = ('circle', 'square', 'triangle')
KINDS = ('bbox', 'segm')
_READ = {
    'images': ('id', 'file_name', 'width', 'height'),
    'categories': ('id', 'name'),
    'annotations': (
        'id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation',
    ),
    'detections': ('image_id', 'category_id', 'score', 'bbox', 'segmentation'),
}  # fmt: skip
_OF_ANOTHER = 'as in another record'
VALUES: tuple[Any, ...] = (
    None, True, 'x', '', '1', 'a\0b', 'a\udcff', -1, 1.5, float('nan'), float('inf'),
    1e9, -1e9, 1e300, 2**31, 2**63, 2**70, 10**400, [], {}, [[]], [None], [1, 2, 3],
    [1, 2, 3, 4, 5], ['1', '2', '3', '4'], [float('nan')] * 4, [1e9] * 4,
    [-5, -5, -5, 5],
    [[1, 2, 3, 4]], [[1, 2, 3, 4, 5, 6, 7]], [[1e9, 0, 0, 1e9, 5, 5]], [[0.1] * 6],
    [['a'] * 6], [[[1, 2], [3, 4], [5, 6]]], {'size': [64, 64], 'counts': '0'},
    {'size': [64, 64], 'counts': [1, 2, 3]}, {'size': [64, 64], 'counts': 'zzzzz'},
    {'size': [-1, 64], 'counts': [4096]}, {'size': [64], 'counts': [4096]},
    {'size': [64, 64], 'counts': ''}, {'size': [2**40, 2**40], 'counts': 'o'},
    {'size': [64, 64]}, {'counts': [4096]}, {'size': [64, 64], 'counts': [-5, 4101]},
)  # fmt: skip


def run(root: Path, count: int, seed: int = 0) -> Counter[str]:
    """Try `count` mutated annotation files and a third as many result files.

    Args:
        root: a generated set of shapes.
        count: of annotation files.
        seed: of what is drawn.

    Returns:
        How many were `refused`, `accepted with a note`, `accepted, the same results`,
        ended in a `trace`, or were `silent`.
    """
    rng = random.Random(seed)
    good = json.loads((root / 'annotations/instances_val.json').read_text())
    found = detections(good)
    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'file.json'
        right = figures(good, found)
        for number in range(count + count // 3):
            if number < count:
                content, change = mutated(good, rng)
                write(path, content)
                end = try_annotations(path, found, right)
                if end == 'silent' and is_legal(change):
                    end = 'accepted as it says'
            else:
                content, change = mutated({'detections': found}, rng)
                content = content['detections']
                write(path, content)
                end = try_results(path, good, right)
            ends[end] += 1
            if end in ('trace', 'silent'):
                print(f'{end}: {change}', file=sys.stderr)
    return ends


def detections(truth: dict[str, Any]) -> list[dict[str, Any]]:
    """The truth itself as detections."""
    from pycocotools import mask as coco_mask

    found = []
    sizes = {
        image['id']: (image['height'], image['width']) for image in truth['images']
    }
    for one in truth['annotations']:
        outline, size = one['segmentation'], sizes[one['image_id']]
        runs = coco_mask.frPyObjects(outline, *size)
        runs = coco_mask.merge(runs) if isinstance(runs, list) else runs
        found.append(
            dict(
                image_id=one['image_id'],
                category_id=one['category_id'],
                bbox=one['bbox'],
                score=0.9,
                segmentation=dict(size=list(size), counts=runs['counts'].decode()),
            )
        )
    return found


def mutated(good: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str]:
    """A copy with a field, a record or a list changed, and what was, in words."""
    content = copy.deepcopy(good)
    part = rng.choice(sorted(set(content) & set(_READ)))
    records = content[part]
    place = rng.randrange(len(records))
    field = rng.choice(_READ[part])
    kind = rng.random()
    if kind < 0.15:
        del records[place][field]
    elif kind < 0.75:
        records[place][field] = rng.choice(VALUES)
    elif kind < 0.85:
        records[place][field] = copy.deepcopy(rng.choice(records)[field])
    elif kind < 0.95:
        records[place] = rng.choice(VALUES)
    else:
        content[part] = rng.choice(VALUES)
        return content, f'{part} is {content[part]!r}'
    now = records[place]
    if kind < 0.85:
        now = now.get(field, 'gone')
    change = f'{part}[{place}].{field} is {now!s:.200}'
    return content, f'{change}, {_OF_ANOTHER}' if 0.75 <= kind < 0.85 else change


def is_legal(change: str) -> bool:
    """Whether a file says something else after it, and something that can be meant."""
    return change.endswith((_OF_ANOTHER, '.iscrowd is True', '.iscrowd is gone'))


def write(path: Path, content: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content))


def figures(truth: dict[str, Any], found: list[dict[str, Any]]) -> list[dict]:
    """AP of boxes and masks."""
    return [Comparison(truth, found, kind).scores().values for kind in KINDS]


def try_annotations(path: Path, found: list[dict], right: list[dict]) -> str:
    """What becomes of a mutated annotation file."""
    try:
        content, notes = check_annotations(path, KINDS)
        check_classes(str(path), content, CLASSES, 'config')
        check_results('results.json', found, content, KINDS)
        with contextlib.redirect_stdout(io.StringIO()):
            load(path)
            same = figures(content, found) == right
    except UserError as error:
        return 'refused in one line' if '\n' not in str(error) else 'trace'
    except Exception as error:
        print(repr(error), file=sys.stderr)
        return 'trace'
    if notes:
        return 'accepted with a note'
    return 'accepted, the same results' if same else 'silent'


def try_results(path: Path, truth: dict[str, Any], right: list[dict]) -> str:
    """What becomes of a mutated result file."""
    try:
        found = read_results(path)
        check_results(path, found, truth, KINDS)
        figures(truth, found)
    except UserError as error:
        return 'refused in one line' if '\n' not in str(error) else 'trace'
    except Exception as error:
        print(repr(error), file=sys.stderr)
        return 'trace'
    # Any number is a score, and any box a detection: they are what the file says.
    return 'accepted as it says'


def load(path: Path) -> None:
    """Load every image's truth as training does, its pixels excepted."""
    from mmdet.datasets import CocoDataset
    from mmdet.datasets.transforms import LoadAnnotations

    dataset = CocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        pipeline=[],
    )
    masks = LoadAnnotations(with_bbox=True, with_mask=True)
    for info in entries(dataset):
        masks(dict(info, ori_shape=(info['height'], info['width'])))


def entries(dataset: Any) -> Iterator[dict[str, Any]]:
    """What a dataset knows of each image."""
    for index in range(len(dataset)):
        yield dataset.get_data_info(index)


def main() -> None:
    """Print what became of the files."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / 'shapes'
        spec = ShapesSpec(
            num_train=1, num_val=6, height=64, width=64, crowd_fraction=0.3
        )
        generate_shapes(root, spec)
        ends = run(root, count)
    print(f'tried {ends.total()}: {count} annotation files, the rest result files')
    for end, number in sorted(ends.items()):
        print(f'{number:6} {end}')
    sys.exit(bool(ends['trace'] + ends['silent']))


if __name__ == '__main__':
    main()
