"""From a file of one project to a file of another, with what the user has to know."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from gn_det.version import __version__
from gn_det.workbench.errors import UserError
from gn_det.workbench.loading.digests import file_digest
from gn_det.workbench.loading.files import load_file
from gn_det.workbench.loading.system_errors import name_refused_files
from gn_det.workbench.loading.weights import check_values, plain_name
from gn_det.workbench.zoo.convert import detectron, detectron2, imagenet, mmdet
from gn_det.workbench.zoo.convert.conversion import Conversion, Preprocessing, describe
from gn_det.workbench.zoo.convert.layout import Detector, ResNet
from gn_det.workbench.zoo.convert.norm import to_group_norm
from gn_det.workbench.zoo.convert.writing import (
    check_target,
    write_checkpoint,
    write_torch,
)

FORMATS: dict[str, Callable[[Any], Conversion]] = {
    'detectron': detectron.convert,
    'detectron2': detectron2.convert,
    'mmdet1': mmdet.convert_mmdet1,
    'mmdet2': mmdet.convert_mmdet2,
    'mmdet': mmdet.convert_mmdet3,
    'torchvision': imagenet.convert,
    'timm': imagenet.convert,
}
TARGETS = ('mmdet', 'detectron2')
# In which names a file of a format is known by.
_SIGNS = {
    'detectron': ('res2_0_branch2a_w',),
    'detectron2': ('backbone.bottom_up.res2.0.conv1.weight',),
    'mmdet1': ('bbox_head.fc_cls.weight',),
    'mmdet2': ('roi_head.bbox_head.fc_cls.weight',),
    'torchvision': ('layer1.0.conv1.weight',),
}
_SAME_NAMES = {'timm': 'torchvision', 'mmdet': 'mmdet2'}


@dataclasses.dataclass(frozen=True)
class Report:
    """What was written and what goes with it; `str` of it is for the user."""

    target: Path
    model: ResNet | Detector | None
    num_tensors: int
    skipped: Counter[str]
    preprocessing: Preprocessing | None
    config: str | None
    options: dict[str, Any]
    notes: list[str]

    def __str__(self) -> str:
        lines = [
            f'wrote {self.target}: {describe(self.model)}, {self.num_tensors} tensors'
        ]
        lines += [f'skipped {n} ({reason})' for reason, n in self.skipped.items()]
        if self.preprocessing:
            order = 'RGB' if self.preprocessing.bgr_to_rgb else 'BGR'
            mean, std = list(self.preprocessing.mean), list(self.preprocessing.std)
            lines.append(f'images: {order}, mean {mean}, std {std}')
        if self.config:
            lines.append(f'config: {self.config}')
        if self.options:
            pairs = (f"{key}='{_spell(value)}'" for key, value in self.options.items())
            lines.append(f'  --cfg-options {" ".join(pairs)}')
        lines += [f'note: {note}' for note in self.notes]
        return '\n'.join(lines)


@name_refused_files
def convert_file(
    source: str | Path,
    target: str | Path,
    from_format: str,
    to_format: str = 'mmdet',
    *,
    norm: str | None = None,
    num_groups: int = 32,
    trust: bool = False,
) -> Report:
    """Convert a file of weights; see `FORMATS` and `TARGETS`.

    The meta of the result holds what the weights need: `dataset_meta`, and under
    `gn_det` the source with its sha256, the preprocessing, the legacy settings and the
    config of the zoo.

    Args:
        source: a `.pkl`, `.pth` or `.safetensors` file; its content decides.
        target: a `.pth` or `.safetensors` file, written whole or not at all.
        from_format: who wrote the source.
        to_format: who shall read the target.
        norm: 'gn' to turn Batch Norm into a start for Group Norm.
        num_groups: of that Group Norm.
        trust: read the source with full rights; for files of your own.

    Raises:
        UserError: if the source is not what `from_format` says, holds more or less
            than the model, or if the target cannot be written.
    """
    check_target(source, target)
    if num_groups < 1:
        raise UserError(f'--num-groups: expected a positive number, got {num_groups}')
    if to_format == 'detectron2' and Path(target).suffix == '.safetensors':
        raise UserError(f'{target}: detectron2 reads no safetensors; end it in .pth')
    content = load_file(source, trust=trust)
    try:
        result = FORMATS[from_format](content)
        if norm == 'gn':
            _to_group_norm(result, num_groups)
        check_values(result.state_dict)
    except UserError as error:
        hint = '' if '--' in str(error) else _hint(content, from_format)
        raise UserError(f'{source} {error}{hint}') from error
    _add_backbone_advice(result, target)
    if to_format == 'detectron2':
        return _write_detectron2(result, source, target)
    meta = dict(result.meta)
    legacy = meta.pop('legacy', None)
    if from_format in ('detectron', 'detectron2'):
        meta.update(_coco_meta(result.model))
    meta['gn_det'] = dict(
        version=__version__,
        converted_from=from_format,
        source=Path(source).name,
        source_sha256=file_digest(source),
        preprocessing=result.preprocessing and result.preprocessing.as_config(),
        legacy=legacy,
        config=result.config,
        cfg_options=result.options,
    )
    write_checkpoint(target, result.state_dict, meta)
    return _report(result, target, result.state_dict)


def _to_group_norm(result: Conversion, num_groups: int) -> None:
    result.state_dict, skipped = to_group_norm(result.state_dict, num_groups)
    result.skipped += skipped
    if result.is_backbone:
        result.model = dataclasses.replace(result.model, norm='gn')
        # The zoo's configs freeze a stage whose Group Norm has been trained.
        result.options['model.backbone.frozen_stages'] = -1
    result.notes.append(
        'weight and bias of each Batch Norm are a start for Group Norm, no more: what '
        'the running statistics did is gone, so the model has to be trained'
    )


def _add_backbone_advice(result: Conversion, target: str | Path) -> None:
    """How a config loads a backbone, and that the zoo's want Group Norm."""
    if not result.is_backbone:
        return
    if result.model.norm == 'bn':
        result.config, result.options = None, {}
        result.notes.append(
            'the backbone has Batch Norm, the configs of the zoo have Group Norm; '
            '--norm gn makes a start for them'
        )
    elif result.config and _can_be_spelled(str(target)):
        result.options = {
            'model.backbone.init_cfg.checkpoint': str(target),
            **result.options,
        }
    elif result.config:
        result.notes.append(
            '--cfg-options cannot spell the name of this file; rename it and give it '
            'as model.backbone.init_cfg.checkpoint'
        )


def _write_detectron2(
    result: Conversion, source: str | Path, target: str | Path
) -> Report:
    if not isinstance(result.model, Detector):
        raise UserError(f'{source} holds no detector that --to detectron2 knows')
    try:
        renamed = detectron2.to_detectron2(result.state_dict, result.model)
    except UserError as error:
        raise UserError(f'{source} {error}') from error
    write_torch(
        target, {'model': renamed, '__author__': f'converted by gn_det {__version__}'}
    )
    result.config, result.options = None, {}
    if 'legacy' in result.meta:
        result.notes.append(
            'these weights need the boxes of an older time (+1), which detectron2 does '
            'not compute'
        )
    return _report(result, target, renamed)


def _report(result: Conversion, target: str | Path, state: dict[str, Tensor]) -> Report:
    return Report(
        target=Path(target),
        model=result.model,
        num_tensors=len(state),
        skipped=result.skipped,
        preprocessing=result.preprocessing,
        config=result.config,
        options=result.options,
        notes=result.notes,
    )


def _coco_meta(model: ResNet | Detector | None) -> dict[str, Any]:
    """COCO's classes, in whose order Detectron and detectron2 score."""
    if not isinstance(model, Detector) or model.num_classes != 80:
        return {}
    from mmdet.datasets import CocoDataset

    return {'dataset_meta': dict(CocoDataset.METAINFO)}


def _hint(content: Any, from_format: str) -> str:
    """`; it looks like …` where the names are those of another format."""
    names: set[str] = set()
    if isinstance(content, dict):
        for inner in (content, *content.values()):
            if isinstance(inner, dict):
                names.update(plain_name(str(name)) for name in inner)
    for name, signs in _SIGNS.items():
        if name == _SAME_NAMES.get(from_format, from_format):
            continue
        if names.issuperset(signs):
            return f'; it looks like --from {name}'
    return ''


def _can_be_spelled(text: str) -> bool:
    """Whether `--cfg-options` and the shell leave a text as it is.

    mmengine takes blanks and quotes out, and splits at commas and brackets.
    """
    return not re.search(r'[\s,"\'()\[\]]', text)


def _spell(value: Any) -> str:
    """A value as `--cfg-options` reads it."""
    if isinstance(value, list):
        return f'[{",".join(map(str, value))}]'
    return str(value)
