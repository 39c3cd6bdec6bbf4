"""What a config trains, in a few lines a person can compare."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mmengine.config import Config

from gn_det.workbench.inputs.config_parts import leaf_datasets

_NORM_SLOTS = {
    'backbone': ('backbone',),
    'neck': ('neck',),
    'shared head': ('roi_head', 'shared_head'),
    'box head': ('roi_head', 'bbox_head'),
    'mask head': ('roi_head', 'mask_head'),
}


def recipe(cfg: Config) -> dict[str, str]:
    """Label and text of each setting, read from the resolved config."""
    return {
        'detector': _detector(cfg.model),
        'norms': ', '.join(_norms(cfg.model)),
        'starts from': _start(cfg.model.backbone),
        'pixels': _pixels(cfg),
        'images': _images(cfg),
        'optimiser': _optimiser(cfg),
        'schedule': _schedule(cfg),
    }


def rate_drops(cfg: Config) -> list[int]:
    """Epochs or iterations at which the learning rate falls."""
    steps = [s for s in cfg.param_scheduler if s['type'] == 'MultiStepLR']
    return list(steps[0]['milestones']) if steps else []


def _detector(model: Config) -> str:
    backbone = model.backbone
    width = f'-{backbone.groups}x{backbone.base_width}d' if 'groups' in backbone else ''
    frozen = backbone.get('frozen_stages', -1)
    kept = 'nothing frozen' if frozen < 0 else f'stem and stage {frozen} frozen'
    return f'{model.type}, {backbone.type}-{backbone.depth}{width}, {kept}'


def _norms(model: Config) -> Iterator[str]:
    for label, path in _NORM_SLOTS.items():
        part: Any = model
        for key in path:
            part = part.get(key) if part else None
        part = part[0] if isinstance(part, list) else part
        norm = part.get('norm_cfg') if part else None
        if norm:
            yield f'{label} {_norm(norm)}'


def _norm(norm: Config) -> str:
    if norm.get('num_groups'):
        return f'{norm.type}/{norm.num_groups}'
    if norm.get('channels_per_group'):
        return f'{norm.type} with {norm.channels_per_group} channels per group'
    return norm.type if norm.get('requires_grad', True) else f'{norm.type} frozen'


def _start(backbone: Config) -> str:
    init = backbone.get('init_cfg')
    return init.checkpoint if init else 'random weights'


def _pixels(cfg: Config) -> str:
    pixels = cfg.model.data_preprocessor
    order = 'RGB' if pixels.bgr_to_rgb else 'BGR'
    return f'{order}, mean {pixels.mean}, std {pixels.std}'


def _images(cfg: Config) -> str:
    loader = cfg.train_dataloader
    return (
        f'{_size(loader.dataset)} in training, {loader.batch_size} per process; '
        f'{_size(cfg.test_dataloader.dataset)} in testing'
    )


def _size(dataset: Config) -> str:
    """Short side × long side, which images are resized to fit into."""
    dataset = leaf_datasets(dataset)[0]
    resize = next(s for s in dataset.pipeline if 'scale' in s or 'scales' in s)
    if 'scale' in resize:
        long, short = resize.scale
        return f'{short} × {long}'
    shorts = sorted(short for _, short in resize.scales)
    (long,) = {long for long, _ in resize.scales}
    return f'{shorts[0]} to {shorts[-1]} × {long} ({len(shorts)} sizes)'


def _optimiser(cfg: Config) -> str:
    optimizer = cfg.optim_wrapper.optimizer
    paramwise = cfg.optim_wrapper.get('paramwise_cfg') or {}
    decay = optimizer.weight_decay
    norm_decay = decay * paramwise.get('norm_decay_mult', 1.0)
    text = (
        f'{optimizer.type}, rate {optimizer.lr} at {cfg.auto_scale_lr.base_batch_size} '
        f'images, weight decay {decay} ({norm_decay:g} on norms)'
    )
    bias_lr = optimizer.lr * paramwise.get('bias_lr_mult', 1.0)
    bias_decay = decay * paramwise.get('bias_decay_mult', 1.0)
    if (bias_lr, bias_decay) != (optimizer.lr, decay):
        text += f', biases at rate {bias_lr:g} with weight decay {bias_decay:g}'
    return text


def _schedule(cfg: Config) -> str:
    loop = cfg.train_cfg
    length = (
        f'{loop.max_epochs} epochs'
        if loop.get('max_epochs')
        else f'{loop.max_iters} iterations'
    )
    falls = rate_drops(cfg)
    at = f', the rate falls at {" and ".join(map(str, falls))}' if falls else ''
    return length + at
