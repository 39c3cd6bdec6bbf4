"""Where annotation files and images of a set lie, by the layouts that exporters use.

COCO's own (`annotations/instances_train2017.json`, `train2017/`), Roboflow's
(`train/_annotations.coco.json` among its images, `valid`, `test`), CVAT's
(`annotations/instances_default.json`, `images/default/`), Label Studio's
(`result.json`, `images/`), or one JSON file beside a folder of images.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations import read_json

SPLITS = ('train', 'val', 'test')
_NAMES = {
    'train': re.compile(r'(?<![a-z])(train|training)(?![a-z])'),
    'val': re.compile(r'(?<![a-z])(val|valid|validation)(?![a-z])'),
    'test': re.compile(r'(?<![a-z])(test|testing)(?![a-z])'),
}
# COCO's other tasks, in files beside those of objects.
_OTHER_TASKS = ('captions_', 'image_info_', 'panoptic_', 'person_keypoints_', 'stuff_')
_PARTS = ('images', 'annotations', 'categories')
# Of a file; if a folder has these it is taken to have all, which is checked later.
_LOOKED_FOR = 20


@dataclass(frozen=True)
class Found:
    """An annotation file and the folder its file names start from."""

    ann_file: Path
    images: Path


def find_splits(
    data: Path, images: Path | None = None, val: Path | None = None
) -> dict[str, Found]:
    """The annotation files of a set by split, each with its images.

    Args:
        data: a folder, or the annotation file to train on.
        images: the folder of the images; by default they are looked for.
        val: the annotation file to validate on; by default it is looked for where
            `data` is a folder.

    Raises:
        UserError: if there is no annotation file, more than one that may be meant, or
            no folder with its images.
    """
    if data.is_file():
        files = {'train': data}
    elif data.is_dir():
        files = _by_split(data)
    else:
        raise UserError(f'DATA not found: {data}')
    if val is not None:
        files['val'] = val
    return {
        split: Found(files[split], _image_folder(files[split], images))
        for split in SPLITS
        if split in files
    }


def _by_split(folder: Path) -> dict[str, Path]:
    files = [
        path
        for pattern in ('*.json', '*/*.json')
        for path in sorted(folder.glob(pattern))
        if not path.name.startswith(_OTHER_TASKS) and path.is_file()
    ]
    found = [path for path in files if _is_coco(path)]
    if not found:
        seen = ', '.join(str(path) for path in files[:3]) or 'no .json file at all'
        raise UserError(
            f'no COCO annotation file in {folder} or the folders in it ({seen}); '
            'expected objects with the lists images, annotations and categories'
        )
    by_split: dict[str, list[Path]] = {}
    for path in found:
        by_split.setdefault(_split_of(path, folder), []).append(path)
    # One without a name to tell is the training set where there is no other.
    if 'train' not in by_split and '' in by_split:
        by_split['train'] = by_split.pop('')
    if 'train' not in by_split and len(found) == 1:
        by_split = {'train': found}
    for split, paths in by_split.items():
        if len(paths) > 1 and split:
            raise _two(paths, f'the set to {_USES[split]} on')
    if 'train' not in by_split:
        raise _two(found, 'the training set')
    return {split: by_split[split][0] for split in SPLITS if split in by_split}


_USES = {'train': 'train', 'val': 'validate', 'test': 'test'}


def _two(paths: Sequence[Path], what: str) -> UserError:
    listed = ', '.join(map(str, paths[:4])) + (', …' if len(paths) > 4 else '')
    return UserError(
        f'{len(paths)} files may be {what}: {listed}; name one as DATA, and with '
        '--val the one to validate on'
    )


def _split_of(path: Path, folder: Path) -> str:
    """By the file's name, else by its folder's; '' if neither tells."""
    for name in (path.stem, path.parent.relative_to(folder).name):
        for split, pattern in _NAMES.items():
            if pattern.search(name.lower()):
                return split
    return ''


def _is_coco(path: Path) -> bool:
    try:
        content = read_json(path)
    except UserError:
        return False
    return isinstance(content, Mapping) and all(
        isinstance(content.get(part), list) for part in _PARTS
    )


def _image_folder(ann_file: Path, images: Path | None) -> Path:
    names = _some_names(ann_file)
    tried = [images] if images else list(_candidates(ann_file))
    having = [folder for folder in tried if _has_all(folder, names)]
    if not having:
        raise UserError(
            f'images of {ann_file} not found: {names[0]} is not in '
            f'{", ".join(map(str, tried[:4]))}{", …" if tried[4:] else ""}; name their '
            'folder with --images'
        )
    distinct = {os.path.realpath(folder): folder for folder in reversed(having)}
    if len(distinct) > 1:
        listed = ' and '.join(map(str, reversed(distinct.values())))
        raise UserError(
            f'the images of {ann_file} are in {listed}; name one with --images'
        )
    return having[0]


def _some_names(ann_file: Path) -> list[str]:
    if not ann_file.is_file():
        raise UserError(f'annotation file not found: {ann_file}')
    content: Any = read_json(ann_file)
    images = content.get('images') if isinstance(content, Mapping) else None
    listed = images if isinstance(images, list) else []
    names = [image.get('file_name') for image in listed if isinstance(image, Mapping)]
    texts = [name for name in names if isinstance(name, str) and name]
    if not texts:
        raise UserError(
            f'{ann_file} lists no image; expected an object with the lists '
            f'{", ".join(_PARTS)}'
        )
    step = -(-len(texts) // _LOOKED_FOR)
    return texts[::step]


def _candidates(ann_file: Path) -> Iterator[Path]:
    """Folders where exporters put images, the likeliest first."""
    here, stem = ann_file.parent, ann_file.stem
    own = [stem, stem.removeprefix('instances_'), here.name, *_split_words(stem)]
    for folder in (here, here.parent):
        yield folder
        yield folder / 'images'
        for name in dict.fromkeys(own):
            yield folder / name
            yield folder / 'images' / name


def _split_words(stem: str) -> list[str]:
    return [found[0] for p in _NAMES.values() if (found := p.search(stem.lower()))]


def _has_all(folder: Path, names: Sequence[str]) -> bool:
    return all(os.path.isfile(folder / name) for name in names)
