"""What the zoo has for a config, where an evaluation can be compared with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.changed_settings import changed_settings
from gn_det.workbench.zoo import Model, load_index

_VAL2017 = 'instances_val2017.json'
_VAL2017_IMAGES = 5000


@dataclass(frozen=True)
class Published:
    """Average precision in percent, and who published it."""

    by: str
    box_ap: float | None
    mask_ap: float | None

    def ap(self, kind: str) -> float | None:
        """The AP for `'bbox'` or `'segm'`, if there is one."""
        return self.box_ap if kind == 'bbox' else self.mask_ap


def published_scores(
    config: str | Path, ann_file: str | Path, evaluated: Config | None = None
) -> Published | str:
    """The zoo's scores for a config, or a sentence why none can stand beside.

    Args:
        config: path of the config that is evaluated.
        ann_file: the annotations it is evaluated on; the zoo's scores are of COCO
            val2017.
        evaluated: the config with what flags and `--cfg-options` made of it; by default
            it is as its file says.
    """
    try:
        model = _find(Path(config))
    except UserError as error:
        # An evaluation of hours must not end without its scores for this.
        return f'nothing to compare with: {error}'
    if model is None:
        return 'nothing to compare with: the config is not in the zoo'
    if model.box_ap is None:
        return f'nothing to compare with: {model.name} has no scores in the zoo'
    if model.collection.training_data != 'COCO':
        data = model.collection.training_data
        return f'nothing to compare with: the zoo has {_shown(model)} on {data}'
    if not _is_val2017(Path(ann_file)):
        return (
            f'not comparable with the zoo, which has {_shown(model)} on the '
            f'{_VAL2017_IMAGES} images of COCO val2017: {ann_file} is another set'
        )
    changed = changed_settings(evaluated) if evaluated is not None else []
    if changed:
        more = f', and {len(changed) - 1} more' if changed[1:] else ''
        return (
            f'not comparable: the zoo has {_shown(model)} for {config} as it is, and '
            f'here {changed[0]}{more}'
        )
    return Published(model.source or 'the zoo', model.box_ap, model.mask_ap)


def _find(config: Path) -> Model | None:
    for model in load_index():
        if model.config_path.resolve() == config.resolve():
            return model
    return None


def _shown(model: Model) -> str:
    mask = '' if model.mask_ap is None else f', mask AP {model.mask_ap}'
    return f'box AP {model.box_ap}{mask}'


def _is_val2017(ann_file: Path) -> bool:
    """By name and by the number of images: parts of it often keep the name."""
    if ann_file.name != _VAL2017:
        return False
    try:
        content = json.loads(ann_file.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return False
    return len(content.get('images', ())) == _VAL2017_IMAGES
