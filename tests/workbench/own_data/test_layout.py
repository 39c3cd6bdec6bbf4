"""Where exporters put annotation files and images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gn_det.workbench.own_data.layout import find_splits

CAPTIONS = 'annotations/captions_train2017.json'
LAYOUTS = {
    'COCO': {
        'train': ('annotations/instances_train2017.json', 'train2017'),
        'val': ('annotations/instances_val2017.json', 'val2017'),
    },
    'Roboflow': {
        'train': ('train/_annotations.coco.json', 'train'),
        'val': ('valid/_annotations.coco.json', 'valid'),
        'test': ('test/_annotations.coco.json', 'test'),
    },
    'CVAT': {'train': ('annotations/instances_default.json', 'images/default')},
    'CVAT, no subset': {'train': ('annotations/instances_default.json', 'images')},
    'Label Studio': {'train': ('result.json', 'images')},
    'subsets': {
        'train': ('annotations/instances_train.json', 'images/train'),
        'val': ('annotations/instances_val.json', 'images/val'),
    },
    'files at the root': {
        'train': ('coco_train.json', 'images'),
        'val': ('coco_val.json', 'images'),
    },
    # A word within another is no split.
    'training of trains': {'train': ('trainspotting.json', '.')},
}


@pytest.mark.parametrize('name', LAYOUTS)
def test_a_layout_is_known(tmp_path, name):
    for split, (ann_file, images) in LAYOUTS[name].items():
        image = tmp_path / images / f'{split}.jpg'
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
        content = dict(images=[dict(file_name=image.name)], annotations=[])
        write(tmp_path / ann_file, dict(content, categories=[]))
    write(tmp_path / CAPTIONS, dict(images=[], annotations=[], categories=[]))
    found = find_splits(tmp_path)
    assert {
        split: (one.ann_file, one.images.resolve()) for split, one in found.items()
    } == {
        split: (tmp_path / ann_file, (tmp_path / images).resolve())
        for split, (ann_file, images) in LAYOUTS[name].items()
    }


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
