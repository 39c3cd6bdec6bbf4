"""Looking at the data before the Runner does: folders, annotation files, images."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS, METRICS
from mmengine.config import Config, ConfigDict
from mmengine.dataset import BaseDataset

from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs import annotations
from gn_det.workbench.inputs.annotations.reading import SharedCOCO
from gn_det.workbench.inputs.building import registered, type_name
from gn_det.workbench.inputs.config_parts import evaluators, leaf_datasets
from gn_det.workbench.inputs.heads import check_heads
from gn_det.workbench.inputs.images import (
    Unreadable,
    decoded_size,
    read_image,
    size_differs,
)

_HOW_TO_SET = 'put or link the data there, or pass --cfg-options data_root=PATH'
# Files whose first bytes are read before a run; of a larger set so many, spread evenly.
_LOOKED_INTO = 1000


def check_data(cfg: Config, splits: Iterable[str]) -> list[str]:
    """Check that the local COCO data of the named splits are as the config needs them.

    Folders, annotation files (`check_annotations`), classes and the heads of the model,
    and that every image is there, or is left out where the config has
    `skip_broken_images`. What has been parsed is handed on to mmdet.

    Args:
        cfg: a whole config.
        splits: among `'train'`, `'val'`, `'test'`; one without a dataloader is passed
            over.

    Returns:
        What is odd in the data but legal, in words and with counts.

    Raises:
        UserError: naming what is missing or wrong, where, and the way out.
    """
    files: dict[str, _File] = {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if loader is None:
            continue
        kinds = asked_kinds(cfg, split)
        with_truth = needs_truth(cfg, split)
        where = f'{split}_dataloader'
        for dataset in leaf_datasets(loader.dataset):
            if not _is_local_coco(dataset):
                continue
            ann_file = _check_places(dataset, where)
            if not reads_coco(dataset):
                continue
            file = files.setdefault(os.path.realpath(ann_file), _File(ann_file))
            file.use(kinds, with_truth)
            file.datasets.append((dataset, where))
        for evaluator in evaluators(cfg, split):
            ann_file = evaluator.get('ann_file')
            if ann_file and _is_coco_metric(evaluator) and '://' not in ann_file:
                file = files.setdefault(os.path.realpath(ann_file), _File(ann_file))
                file.use(kinds, with_truth)
                file.evaluators += 1
    return [note for file in files.values() for note in file.check(cfg)]


class _File:
    """An annotation file and who reads it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.kinds: set[str] = set()
        self.with_truth = False
        self.datasets: list[tuple[ConfigDict, str]] = []
        self.evaluators = 0

    def use(self, kinds: Collection[str], with_truth: bool) -> None:
        self.kinds |= set(kinds)
        self.with_truth |= with_truth

    def check(self, cfg: Config) -> list[str]:
        content, notes = annotations.check_annotations(
            self.path, self.kinds, self.with_truth
        )
        for dataset, where in self.datasets:
            classes = class_names(dataset)
            if classes is not None and not dataset.get('return_classes'):
                annotations.check_classes(self.path, content, classes, where)
                check_heads(cfg, classes, where)
        folders = {
            (image_folder(dataset), _turns(dataset)): where
            for dataset, where in self.datasets
        }
        for (folder, turned), where in folders.items():
            if cfg.get('skip_broken_images'):
                content, left_out = _without_broken(self.path, content, folder, turned)
                notes += left_out
            else:
                _check_images(self.path, content['images'], folder, turned, where)
        takers = self.evaluators + len(self.datasets)
        annotations.hand_on(self.path, content, takers)
        return notes


def needs_truth(cfg: Config, split: str) -> bool:
    """Whether a split must have annotations: all but a test set only formatted."""
    found = evaluators(cfg, 'test')
    only_formatted = found and all(item.get('format_only') for item in found)
    return split != 'test' or not only_formatted


def class_names(dataset: ConfigDict) -> tuple[str, ...] | None:
    """The classes that a dataset of a config gives its model, in their order.

    They are what a metric evaluates. None if the dataset's type has none of its own and
    the config names none.
    """
    kind = registered(DATASETS, dataset.get('type', ''))
    if not (isinstance(kind, type) and issubclass(kind, BaseDataset)):
        return (dataset.get('metainfo') or {}).get('classes')
    # As the dataset does itself: classes may be the path of a file that lists them.
    meta = kind._load_metainfo(dict(dataset.get('metainfo') or {}))
    classes = meta.get('classes')
    return None if classes is None else tuple(classes)


def reads_coco(dataset: ConfigDict) -> bool:
    """Whether a dataset reads its file as mmdet's `CocoDataset` does."""
    kind = registered(DATASETS, dataset.get('type', ''))
    return (
        isinstance(kind, type)
        and issubclass(kind, CocoDataset)
        and kind.COCOAPI in (COCO, SharedCOCO)
        and kind.load_data_list is CocoDataset.load_data_list
    )


def image_folder(dataset: ConfigDict) -> str:
    """Where the images of a dataset lie."""
    prefix = (dataset.get('data_prefix') or {}).get('img', '')
    return os.path.join(dataset.get('data_root') or '', prefix)


def asked_kinds(cfg: Config, split: str) -> list[str]:
    """`'segm'` where masks are loaded or evaluated, and always `'bbox'`."""
    metrics = [evaluator.get('metric') or () for evaluator in evaluators(cfg, split)]
    asked = {
        kind for one in metrics for kind in ([one] if isinstance(one, str) else one)
    }
    steps = (
        step
        for dataset in _with_pipelines(cfg[f'{split}_dataloader'].dataset)
        for step in dataset.get('pipeline') or ()
    )
    loaded = any(
        type_name(step) == 'LoadAnnotations' and step.get('with_mask') for step in steps
    )
    return ['bbox', 'segm'] if loaded or 'segm' in asked else ['bbox']


def _turns(dataset: ConfigDict) -> bool:
    """Whether images are loaded turned as their EXIF data say."""
    loading = (
        step.get('color_type', 'color')
        for step in dataset.get('pipeline') or ()
        if type_name(step) == 'LoadImageFromFile'
    )
    return all(kind in ('color', 'grayscale') for kind in loading)


def _with_pipelines(dataset: ConfigDict) -> Iterator[ConfigDict]:
    yield dataset
    for inner in [dataset.get('dataset'), *(dataset.get('datasets') or ())]:
        if inner is not None:
            yield from _with_pipelines(inner)


def _is_coco_metric(evaluator: ConfigDict) -> bool:
    kind = registered(METRICS, evaluator.get('type', ''))
    return isinstance(kind, type) and issubclass(kind, CocoMetric)


def _is_local_coco(dataset: ConfigDict) -> bool:
    backend = (dataset.get('backend_args') or {}).get('backend', 'local')
    ann_file = str(dataset.get('ann_file', ''))
    return (
        backend == 'local'
        and ann_file.endswith('.json')
        and '://' not in str(dataset.get('data_root', '')) + ann_file
    )


def _check_places(dataset: ConfigDict, where: str) -> str:
    """The annotation file, which is there, as are the folders."""
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
    folder = image_folder(dataset)
    if not os.path.isdir(folder):
        raise UserError(
            f'image folder not found: {os.path.abspath(folder)} (data_prefix.img of '
            f'{where}); {_HOW_TO_SET}'
        )
    return ann_file


def _check_images(
    ann_file: str, images: list[dict[str, Any]], folder: str, turned: bool, where: str
) -> None:
    """Every image is there and not empty; those looked into are of the size it says."""
    paths = [os.path.join(folder, image['file_name']) for image in images]
    sizes: dict[str, dict[str, int]] = {}
    missing = []
    for number, path in enumerate(paths):
        parent, name = os.path.split(path)
        if parent not in sizes:
            sizes[parent] = _file_sizes(parent)
        # A file system may know a name in other letters than it lists it.
        if name not in sizes[parent] and not os.path.isfile(path):
            missing.append(number)
        elif sizes[parent].get(name) == 0:
            _refuse(ann_file, images, number, path, 'the file is empty')
    if missing:
        count = f', and {len(missing) - 1} more are not there' if missing[1:] else ''
        _refuse(
            ann_file,
            images,
            missing[0],
            os.path.abspath(paths[missing[0]]),
            f'there is no such file{count}; check data_prefix.img of {where}',
        )
    for number in range(0, len(images), -(-len(images) // _LOOKED_INTO)):
        try:
            found = decoded_size(paths[number], turned)
        except Unreadable as reason:
            _refuse(ann_file, images, number, paths[number], str(reason))
        said = images[number]['height'], images[number]['width']
        if found not in (None, said):
            _refuse(ann_file, images, number, paths[number], size_differs(found, said))


def _without_broken(
    ann_file: str, content: dict[str, Any], folder: str, turned: bool
) -> tuple[dict[str, Any], list[str]]:
    """A file's content without the images that cannot be used, and which these are.

    Every image is decoded once, by as many threads as there are CPUs.
    """
    images = content['images']
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = list(pool.map(lambda one: _fault(one, folder, turned), images))
    broken = {
        image['id']: f'{ann_file}: left out {image["file_name"]}: {reason}'
        for image, reason in zip(images, reasons, strict=True)
        if reason is not None
    }
    if len(broken) == len(images):
        raise UserError(f'{next(iter(broken.values()))}; no image can be used')
    if not broken:
        return content, []
    kept = {**content, 'images': [i for i in images if i['id'] not in broken]}
    objects = content.get('annotations')
    if objects is not None:
        kept['annotations'] = [a for a in objects if a['image_id'] not in broken]
    count = f'{ann_file}: {len(broken)} of {len(images)} images are left out'
    return kept, [count, *broken.values()]


def _fault(image: dict[str, Any], folder: str, turned: bool) -> str | None:
    path = os.path.join(folder, image['file_name'])
    try:
        found = decoded_size(path, turned)
        decoded = read_image(path)
    except Unreadable as reason:
        return str(reason)
    found, said = found or decoded.shape[:2], (image['height'], image['width'])
    return None if found == said else size_differs(found, said)


def _refuse(
    ann_file: str, images: list[dict[str, Any]], number: int, path: str, reason: str
) -> None:
    raise UserError(
        f'{ann_file}: images[{number}] (id {images[number]["id"]!r}), {path}: {reason}'
    )


def _file_sizes(folder: str) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries}
    except OSError:
        return {}
