"""`model_zoo.md`, generated from the metafiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import groupby

from gn_det.workbench.zoo.commands import (
    checkpoint_commands,
    evaluation_commands,
    training_commands,
)
from gn_det.workbench.zoo.index import Collection, Model, Weights
from gn_det.workbench.zoo.listing import ap, provenance

PAGE = 'model_zoo.md'

_INTRODUCTION = """\
<!-- Generated from configs/*/metafile.yml by `make zoo`; change those. -->

# Model zoo

{count} configs in {families} families, as `gn-det zoo list` prints them:
{published} have published scores and weights, {measured} was trained here, and
{unknown} are untested (nobody has published their scores, and they have not been run
here). How to read the tables:

- **Box AP and mask AP** are COCO's average precision in percent, on val2017 unless the
  notes say otherwise.
- **By** names whose scores they are: the code base that published them for this very
  training (they are not measured again here), or *measured* for this project's own. A
  dash: untested.
- **Elsewhere** has other code bases' scores for the same training, or for one whose
  difference is named. Their models are other ones; the scores say what to expect.
- **Memory** is per GPU in training, **ms** the time of one image on the GPU behind it.
  Both are the publisher's and of stock Group Norm; Detectron's ms are without
  postprocessing.
- **Weights** link to the publisher's file by the first digits of its hash, which
  `gn-det zoo download` checks; *file* is one whose publisher gives no hash. A
  format behind them means that the file needs `gn-det convert`.

`gn-det zoo show NAME` prints a model's settings and the commands for it. To
reproduce the scores of a row that has weights, here {example}:

```bash
{commands}
```

To train it instead, on one GPU, for which `--auto-scale-lr` scales the learning rate
and stretches a schedule counted in iterations, or on eight:

```bash
{training}
```

Every row is one config and every config one row.
"""

_HEAD = (
    'config',
    'schedule',
    'box AP',
    'mask AP',
    'by',
    'elsewhere, box/mask',
    'memory, GB',
    'ms',
    'weights',
    'log',
)


def render(models: Iterable[Model]) -> str:
    """The page's text; the example is the first model that has weights."""
    models = list(models)
    families = [
        (collection, list(members))
        for collection, members in groupby(models, key=lambda model: model.collection)
    ]
    statuses = Counter(model.status for model in models)
    example = next(model for model in models if model.weights is not None)
    parts = [
        _INTRODUCTION.format(
            count=len(models),
            families=len(families),
            published=statuses['published'],
            measured=statuses['measured'],
            unknown=statuses['none'],
            example=f'`{example.name}`',
            commands='\n'.join(
                [*checkpoint_commands(example), *evaluation_commands(example)]
            ),
            training='\n'.join(training_commands(example)),
        )
    ]
    parts += ['\n'.join(_family(*family)) + '\n' for family in families]
    return '\n'.join(parts)


def _family(collection: Collection, models: list[Model]) -> Iterator[str]:
    yield f'## {collection.folder}: {collection.name}'
    yield ''
    paper = f'[{collection.paper_title}]({collection.paper_url})'
    resources = collection.training_resources
    trained = f'trained on {collection.training_data}'
    yield f'{paper}; {trained}{f", {resources}" if resources else ""}.'
    yield ''
    for note in collection.notes:
        yield f'- {note}'
    if collection.notes:
        yield ''
    yield _line(_HEAD)
    yield _line('---' for _ in _HEAD)
    for model in models:
        yield _line(_cells(model))


def _line(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _cells(model: Model) -> Iterator[str]:
    yield f'[{model.name}]({model.config})'
    yield f'{model.schedule}, {_length(model)}'
    yield ap(model.box_ap)
    yield ap(model.mask_ap)
    yield f'*{provenance(model)}*' if model.status == 'measured' else provenance(model)
    yield '; '.join(_elsewhere(model)) or '-'
    yield '-' if model.memory_gb is None else f'{model.memory_gb:.1f}'
    yield '-' if model.inference_ms is None else _speed(model)
    yield '-' if model.weights is None else _link(model.weights)
    yield '-' if model.log is None else f'[log]({model.log})'


def _length(model: Model) -> str:
    if model.epochs is not None:
        return f'{model.epochs} epochs'
    return f'{model.iterations:,} iterations'


def _speed(model: Model) -> str:
    return f'{model.inference_ms:.0f} ({model.inference_hardware})'


def _elsewhere(model: Model) -> Iterator[str]:
    for scores in model.elsewhere:
        mask = '' if scores.mask_ap is None else f'/{ap(scores.mask_ap)}'
        yield f'{ap(scores.box_ap)}{mask} ({scores.by})'


def _link(weights: Weights) -> str:
    digits = weights.sha256 or weights.md5 or '*file*'
    form = f', {weights.format}' if weights.needs_conversion else ''
    return f'[{digits[:8]}]({weights.url}){form}'
