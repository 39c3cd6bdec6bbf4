"""The zoo as text: one line per model, or all that is known of one."""

from __future__ import annotations

from collections.abc import Iterable

from gn_det.workbench.inputs.config import load_config
from gn_det.workbench.zoo.commands import (
    checkpoint_commands,
    data_commands,
    evaluation_commands,
    training_commands,
)
from gn_det.workbench.zoo.index import Model
from gn_det.workbench.zoo.recipe import recipe

_HEAD = ('model', 'schedule', 'box AP', 'mask AP', 'by', 'weights')


def table(models: Iterable[Model]) -> str:
    """Aligned columns under a head; `-` where nobody has published a score."""
    rows = [_HEAD, *map(_row, models)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(
            cell.ljust(width) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def describe(model: Model) -> str:
    """Settings, scores, weights and the commands to evaluate and to train."""
    lines = [model.name, f'  {"config":12}{model.config}']
    for label, text in recipe(load_config(str(model.config_path))).items():
        lines.append(f'  {label:12}{text}')
    lines += ['', 'scores, AP in percent', *(f'  {line}' for line in _scores(model))]
    lines += ['', 'weights', *(f'  {line}' for line in _weights(model))]
    if data := data_commands(model):
        lines += ['', 'data', *(f'  {line}' for line in data)]
    evaluate = [*checkpoint_commands(model), *evaluation_commands(model)]
    lines += ['', 'evaluate', *(f'  {line}' for line in evaluate)]
    lines += ['', 'train', *(f'  {line}' for line in training_commands(model))]
    return '\n'.join(lines)


def provenance(model: Model) -> str:
    """Whose the model's scores are: `measured`, a publisher, or `-`."""
    if model.status == 'measured':
        return 'measured'
    return model.source.partition(',')[0] if model.source else '-'


def ap(value: float | None) -> str:
    """One decimal, or `-`."""
    return '-' if value is None else f'{value:.1f}'


def _row(model: Model) -> tuple[str, ...]:
    weights = model.weights
    return (
        model.name,
        model.schedule,
        ap(model.box_ap),
        ap(model.mask_ap),
        provenance(model),
        '-' if weights is None else weights.format,
    )


def _scores(model: Model) -> list[str]:
    lines = []
    if model.box_ap is None:
        lines.append('none for this config, published or measured')
    else:
        word = 'measured' if model.status == 'measured' else 'published by'
        lines.append(f'{_pair(model.box_ap, model.mask_ap)}, {word} {model.source}')
    lines += [
        f'{_pair(other.box_ap, other.mask_ap)}, published elsewhere: {other.by}'
        for other in model.elsewhere
    ]
    if model.memory_gb is not None:
        lines.append(f'{model.memory_gb:g} GB per GPU in training')
    if model.inference_ms is not None:
        lines.append(f'{model.inference_ms:g} ms per image, {model.inference_hardware}')
    return lines


def _pair(box: float | None, mask: float | None) -> str:
    return f'box {ap(box)}' if mask is None else f'box {ap(box)}, mask {ap(mask)}'


def _weights(model: Model) -> list[str]:
    weights = model.weights
    if weights is None:
        return ['none published']
    digests = (('sha256', weights.sha256), ('md5', weights.md5))
    known = [f'{kind} {digits}…' for kind, digits in digests if digits]
    known = known or ['no hash published']
    lines = [weights.url, ', '.join([f'format {weights.format}', *known])]
    if weights.license:
        lines.append(f'licence: {weights.license}')
    if model.log:
        lines.append(f'training log: {model.log}')
    return lines
