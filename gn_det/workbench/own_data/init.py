"""A look at a set in COCO's format, and the config that trains on it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from gn_det.workbench.atomic_files import finish, partial_folder
from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.annotations import check_annotations, hand_on
from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.inputs.config_names import find_config, packaged_configs
from gn_det.workbench.inputs.data import asked_kinds, check_data
from gn_det.workbench.own_data.config_text import SplitText, config_text
from gn_det.workbench.own_data.layout import Found, find_splits
from gn_det.workbench.own_data.schedule import epochs_for, schedule_lines
from gn_det.workbench.own_data.splitting import split
from gn_det.workbench.zoo.index import find

# The detector with published weights whose backbone both bases share.
_START = 'mask-rcnn_r50_fpn_gn-all_2x_coco'
# With masks, and with boxes alone.
_BASES = {True: _START, False: 'faster-rcnn_r50_fpn_gn-all_2x_coco'}


@dataclass(frozen=True)
class Wishes:
    """What may be said instead of being looked for.

    Attributes:
        images: the folder of the images.
        val: the annotation file to validate on.
        base: the config to begin with; by default Mask R-CNN or Faster R-CNN, R-50.
        load_from: what to start from; by default the base's published weights.
        epochs: how many; by default by the size of the set.
        overwrite: replace what was written before.
    """

    images: str | None = None
    val: str | None = None
    base: str | None = None
    load_from: str | None = None
    epochs: int | None = None
    overwrite: bool = False


def write_config(
    data: str, out: str | None = None, wishes: Wishes | None = None
) -> Iterator[str]:
    """Write the config of a training on a set, and two files if it has to be split.

    Before anything is written the set is checked as before a training, against the
    config.

    Args:
        data: a folder, or the annotation file to train on.
        out: the config, by default `configs/NAME.py` with the name of the folder.
        wishes: what is not to be looked for.

    Yields:
        What was found and done, a line each.

    Raises:
        UserError: if the set is not found or wrong, the base needs what it has not, or
            a file is there already.
    """
    wishes = wishes or Wishes()
    folder = Path(data)
    target = Path(out or f'configs/{_name_of(folder)}.py')
    if target.suffix != '.py':
        raise UserError(f'--out: expected a .py file, got {target}')
    beside = {s: target.with_name(f'{target.stem}_{s}.json') for s in ('train', 'val')}
    _check_is_new([target], wishes.overwrite)
    found = find_splits(
        folder,
        Path(wishes.images) if wishes.images else None,
        Path(wishes.val) if wishes.val else None,
    )
    contents = {s: _read(str(one.ann_file)) for s, one in found.items()}
    masked, word = _mask_state(contents)
    base = load_config(wishes.base or _BASES[masked])
    if 'segm' in asked_kinds(base, 'train') and not masked:
        raise UserError(
            f'{wishes.base} trains masks, and {word}; name a config for boxes with '
            f'--base, such as {_BASES[False]}'
        )
    classes, unused = _classes(found['train'].ann_file, contents)
    parts: dict[str, dict[str, Any]] = {}
    if 'val' not in contents:
        _check_is_new(beside.values(), wishes.overwrite)
        parts = _held_out(str(found['train'].ann_file), contents['train'])
        contents |= parts
        found = {**found, 'val': found['train']}
    root = _root(folder, found)
    splits = {
        name: SplitText(
            f'{{{{ fileDirname }}}}/{beside[name].name}'
            if name in parts
            else _within(one.ann_file, root),
            _within(one.images, root, folder=True),
        )
        for name, one in found.items()
    }
    images = len({one['image_id'] for one in contents['train']['annotations']})
    epochs = epochs_for(images) if wishes.epochs is None else wishes.epochs
    per_epoch = -(-images // base.train_dataloader.batch_size)
    start = _start(wishes, base)
    text = config_text(
        base,
        _base_name(wishes.base or _BASES[masked], base),
        f'{folder.name}: {images} images with objects of {len(classes)} classes.',
        os.path.join(root, ''),
        classes,
        splits,
        schedule_lines(base, epochs, per_epoch),
        start,
    )
    yield from _found_lines(contents, parts, word)
    if unused:
        yield f'left out, no object has them: {", ".join(unused)}'
    replaced = target.exists()
    notes = _write(target, text, {beside[s]: part for s, part in parts.items()})
    yield from notes
    if parts:
        yield (
            f'no validation set: {len(parts["val"]["images"])} images are held out '
            f'({beside["train"]}, {beside["val"]})'
        )
    yield f'starts from {start or "the backbone of the base, which has no weights"}'
    verb = 'replaced' if replaced else 'wrote'
    yield f'{verb} {target}: {epochs} epochs of {per_epoch} iterations in one process'


def _name_of(data: Path) -> str:
    folder = data.resolve() if data.is_dir() else data.resolve().with_suffix('')
    return re.sub(r'[^\w.-]+', '_', folder.name) or 'mine'


def _check_is_new(paths: Any, overwrite: bool) -> None:
    for path in paths:
        if os.path.isdir(path):
            raise UserError(f'{path} is a folder; name another file with --out')
        if path.exists() and not overwrite:
            raise UserError(
                f'{path} is there already; name another with --out, or pass --overwrite'
            )


def _read(path: str) -> dict[str, Any]:
    content, _ = check_annotations(path)
    # For the next look at it, which needs the classes and masks known by now.
    hand_on(path, content, 1)
    return content


def _mask_state(contents: Mapping[str, Mapping[str, Any]]) -> tuple[bool, str]:
    """Whether all objects have masks, and words for it."""
    objects = [one for content in contents.values() for one in content['annotations']]
    if not objects:
        raise UserError('the set has no annotation; there is nothing to train on')
    bare = sum(not one.get('segmentation') for one in objects)
    if not bare:
        return True, 'all objects have masks'
    if bare == len(objects):
        return False, 'no object has a mask'
    return False, f'{bare} of {len(objects)} objects have no mask'


def _classes(
    ann_file: Path, contents: Mapping[str, Mapping[str, Any]]
) -> tuple[list[str], list[str]]:
    """Categories with objects in any split, and the others, in the file's order."""
    used = {name for content in contents.values() for name in _used_names(content)}
    names = [category['name'] for category in contents['train']['categories']]
    strange = sorted(used - set(names))
    if strange:
        raise UserError(
            f'{ann_file} has no category {strange[0]!r}, of which another file of the '
            'set has objects; give all files the same categories'
        )
    return [n for n in names if n in used], [n for n in names if n not in used]


def _used_names(content: Mapping[str, Any]) -> set[str]:
    ids = {one['category_id'] for one in content['annotations']}
    return {c['name'] for c in content['categories'] if c['id'] in ids}


def _held_out(ann_file: str, content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    with_objects = {one['image_id'] for one in content['annotations']}
    if len(with_objects) < 2:
        raise UserError(
            f'{ann_file} has objects in {len(with_objects)} image; two are needed, one '
            'to train and one to validate on'
        )
    train, val = split(content)
    return {'train': train, 'val': val}


def _root(data: Path, found: Mapping[str, Found]) -> str:
    if data.is_dir():
        return str(data)
    one = found['train']
    common = os.path.commonpath([one.ann_file.resolve().parent, one.images.resolve()])
    here = os.path.relpath(common)
    return common if here.startswith('..') else here


def _within(path: Path, root: str, folder: bool = False) -> str:
    """A path below the root, or a whole one; a folder's ends in a slash."""
    relative = os.path.relpath(path, root)
    if relative == '.':
        return ''
    text = os.path.abspath(path) if relative.startswith('..') else relative
    return f'{text}/' if folder else text


def _base_name(given: str, base: Config) -> str:
    """How `_base_` names it: by the package, or where that is not possible its path."""
    path = Path(find_config(given))
    if '::' in given:
        return given if given.endswith('.py') else f'{given}.py'
    # mmengine takes no + behind the colons.
    if path in packaged_configs() and '+' not in path.parent.name:
        return f'gn_det::{path.parent.name}/{path.name}'
    return str(path.resolve())


def _start(wishes: Wishes, base: Config) -> str | None:
    if wishes.load_from is not None:
        return wishes.load_from
    if wishes.base is None:
        return _START
    try:
        model = find(Path(base.filename).stem)
    except UserError:
        return None
    return model.name if model.weights else None


def _found_lines(
    contents: Mapping[str, Mapping[str, Any]], parts: Mapping[str, Any], word: str
) -> Iterator[str]:
    for name in ('train', 'val', 'test'):
        if name in contents:
            content = contents[name]
            yield (
                f'{name}: {len(content["images"])} images, '
                f'{len(content["annotations"])} objects'
            )
    yield word


def _write(target: Path, text: str, parts: Mapping[Path, Any]) -> list[str]:
    """Write the files elsewhere, check the config there, and put them in place."""
    try:
        with partial_folder(target) as folder:
            for path, content in parts.items():
                (folder / path.name).write_text(json.dumps(content))
            draft = folder / target.name
            draft.write_text(text, encoding='utf-8')
            cfg = load_config(str(draft))
            notes = check_data(cfg, ('train', 'val', 'test'))
            for path in (*parts, target):
                finish(folder / path.name, path)
    except UserError as error:
        raise UserError(_placed(str(error), folder, target)) from error
    except OSError as error:
        raise UserError(f'cannot write {target}: {error.strerror}') from error
    return [_placed(note, folder, target) for note in notes]


def _placed(text: str, draft: Path, target: Path) -> str:
    """A text about the drafts as one about the files that they become."""
    return text.replace(str(draft), str(target.parent))
