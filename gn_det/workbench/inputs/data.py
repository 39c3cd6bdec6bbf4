"""Looking at the data before the Runner does: folders, annotation file, images."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.config_parts import evaluators, leaf_datasets

# Above this a COCO file is scanned for its parts, not parsed: the Runner parses it
# anyway, and train2017 takes about fifteen seconds.
_PARSE_LIMIT_BYTES = 32 * 2**20
_HOW_TO_SET = 'put or link the data there, or pass --cfg-options data_root=PATH'


def check_data(cfg: Config, splits: Iterable[str]) -> None:
    """Check that the local COCO data of the named splits are where the config says.

    Args:
        cfg: a whole config.
        splits: among `'train'`, `'val'`, `'test'`; one without a dataloader is passed
            over.

    Raises:
        UserError: if the dataset folder, the annotation file or the image folder is
            missing, or if the annotation file is not COCO JSON.
    """
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        for dataset in leaf_datasets(loader.dataset):
            if _is_local_coco(dataset):
                _check_dataset(dataset, f'{split}_dataloader', needs_truth(cfg, split))


def needs_truth(cfg: Config, split: str) -> bool:
    """Whether a split must have annotations: all but a test set only formatted."""
    found = evaluators(cfg, 'test')
    only_formatted = found and all(item.get('format_only') for item in found)
    return split != 'test' or not only_formatted


def _is_local_coco(dataset: ConfigDict) -> bool:
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    ann_file = str(dataset.get('ann_file', ''))
    return (
        backend == 'local'
        and ann_file.endswith('.json')
        and '://' not in str(dataset.get('data_root', '')) + ann_file
    )


def _check_dataset(dataset: ConfigDict, where: str, with_truth: bool) -> None:
    root = dataset.get('data_root') or ''
    if root and not os.path.isdir(root):
        raise UserError(
            f'dataset folder not found: {os.path.abspath(root)} (data_root of '
            f'{where}); {_HOW_TO_SET}'
        )
    ann_file = os.path.join(root, dataset.ann_file)
    if not os.path.isfile(ann_file):
        raise UserError(
            f'annotation file not found: {os.path.abspath(ann_file)} (ann_file of '
            f'{where}); {_HOW_TO_SET}'
        )
    content = check_coco_file(ann_file, with_truth)
    image_dir = os.path.join(root, (dataset.get('data_prefix') or {}).get('img', ''))
    if not os.path.isdir(image_dir):
        raise UserError(
            f'image folder not found: {os.path.abspath(image_dir)} (data_prefix.img of '
            f'{where}); {_HOW_TO_SET}'
        )
    if content is not None:
        _check_classes(dataset, content['categories'], ann_file)
        first = os.path.join(image_dir, content['images'][0]['file_name'])
        if not os.path.isfile(first):
            raise UserError(
                f'image not found: {os.path.abspath(first)}, the first that '
                f'{ann_file} names; check data_prefix.img of {where}'
            )


def _check_classes(dataset: ConfigDict, categories: list[dict], ann_file: str) -> None:
    """A dataset none of whose classes is in the file would load without an object."""
    classes = class_names(dataset)
    names = [category['name'] for category in categories]
    if classes is not None and not set(classes) & set(names):
        raise UserError(
            f'none of the classes of {dataset.type} ({_shown(classes)}) is a category '
            f'of {ann_file} ({_shown(names)}); set '
            'train_dataloader.dataset.metainfo=dict(classes=(…)) and its like'
        )


def class_names(dataset: ConfigDict) -> tuple[str, ...] | None:
    """The classes that a dataset of a config gives its model, in their order.

    They are what a metric evaluates. None if the dataset's type has none of its own and
    the config names none.
    """
    kind = DATASETS.get(dataset.get('type', ''))
    if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
        return (dataset.get('metainfo') or {}).get('classes')
    # As the dataset does itself: classes may be the path of a file that lists them.
    meta = kind._load_metainfo(dict(dataset.get('metainfo') or {}))
    classes = meta.get('classes')
    return None if classes is None else tuple(classes)


def _shown(names: Sequence[str]) -> str:
    return ', '.join([*names[:3], *(['…'] if len(names) > 3 else [])])


def check_coco_file(path: str | Path, with_truth: bool = True) -> dict | None:
    """Check that a file is COCO JSON.

    Args:
        path: the annotation file.
        with_truth: whether `annotations` must be there as well as `images` and
            `categories`.

    Returns:
        Its content, or None for a file too large to parse here.

    Raises:
        UserError: if it is not JSON, cut short, or lacks a part.
    """
    if os.path.getsize(path) > _PARSE_LIMIT_BYTES:
        _scan_coco_file(path, _parts(with_truth))
        return None
    return read_coco_file(path, with_truth)


def read_coco_file(path: str | Path, with_truth: bool = True) -> dict:
    """The content of a COCO file of any size, checked as by `check_coco_file`."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (ValueError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not JSON ({error}); {_WANTED}') from error
    if not isinstance(content, dict):
        raise UserError(
            f'{path} is not COCO JSON: it holds a {type(content).__name__}; {_WANTED}'
        )
    parts = _parts(with_truth)
    missing = [part for part in parts if not isinstance(content.get(part), list)]
    if missing:
        raise UserError(
            f'{path} is not COCO JSON: no list {" or ".join(missing)}; {_WANTED}'
        )
    images = content['images']
    if not images:
        raise UserError(f'{path} lists no images; {_WANTED}')
    if not all(isinstance(image, dict) and 'file_name' in image for image in images):
        raise UserError(f'{path}: an image without a file_name; {_WANTED}')
    for number, category in enumerate(content['categories']):
        if not isinstance(category, dict) or not isinstance(category.get('name'), str):
            raise UserError(f'{path}: categories[{number}] has no name; {_WANTED}')
    return content


def _parts(with_truth: bool) -> list[str]:
    return ['images', 'categories', *(['annotations'] if with_truth else [])]


_WANTED = 'expected an object with the lists images, annotations and categories'


def _scan_coco_file(path: str | Path, parts: list[str]) -> None:
    with (
        open(path, 'rb') as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content[:256].lstrip()[:1] != b'{':
            raise UserError(f'{path} is not COCO JSON; {_WANTED}')
        if content[-256:].rstrip()[-1:] != b'}':
            raise UserError(f'{path} is cut short: it does not end with a brace')
        for part in parts:
            if content.find(f'"{part}"'.encode()) < 0:
                raise UserError(f'{path} is not COCO JSON: no list {part}; {_WANTED}')
