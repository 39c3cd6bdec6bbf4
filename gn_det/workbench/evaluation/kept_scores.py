"""What an evaluation leaves beside its results, `PREFIX.scores.json`, for the report.

Scores, precision against recall, and the images that the model did best and worst on,
each with its objects and what was found: nothing has to be evaluated again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from faster_coco_eval.core import mask as safe_mask

from gn_det.workbench.atomic_files import replacing
from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.coco_scores import (
    CocoScores,
    Comparison,
    OperatingPoint,
    is_finite,
)
from gn_det.workbench.evaluation.confusion import Confusion, confusions
from gn_det.workbench.evaluation.text import printable

# What a detection must score to count for an image, and to be painted.
SCORE_THRESHOLD = 0.3
_IMAGES = 4
# All there are for 31 classes and nothing.
_CONFUSIONS = 1024
_MOST_BYTES = 2**26
# -1 is COCO's word for what is not defined.
_Score = Annotated[float, msgspec.Meta(ge=-1, le=1)]
_RECALLS = msgspec.Meta(min_length=101, max_length=101)
_Name = Annotated[str, msgspec.Meta(pattern=r'^[^\0]*$')]
_Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**20)]
# Some thousand years; a date has no place for more.
_Time = Annotated[float, msgspec.Meta(ge=0, le=2**37)]


@dataclass(frozen=True)
class Mask:
    """A compressed RLE of COCO's: `size` is height and width in pixels."""

    size: tuple[_Pixels, _Pixels]
    counts: str


@dataclass(frozen=True)
class PaintedObject:
    """An object of an image, annotated or detected.

    Attributes:
        name: of its class.
        box: x, y, width, height in pixels.
        mask: None where boxes are evaluated.
        score: None for an annotation.
        crowd: whether it stands for a crowd.
    """

    name: str
    box: tuple[float, float, float, float]
    mask: Mask | None
    score: float | None = None
    crowd: bool = False


@dataclass(frozen=True)
class RankedImage:
    """An image, how well its objects were found, and both of them.

    Attributes:
        file_name: as the annotations name it.
        f1: of `Comparison.image_f1` at `SCORE_THRESHOLD`.
        truth, found: the objects; of what was found only what scores enough.
    """

    file_name: _Name
    f1: _Score
    truth: tuple[PaintedObject, ...]
    found: tuple[PaintedObject, ...]


@dataclass(frozen=True)
class KeptScores:
    """What is kept of one kind of evaluation.

    Attributes:
        values, class_ap: as in `CocoScores`.
        iou_thresholds, precision: precision at these IoUs for 101 recalls, the mean
            over the classes.
        best, worst: at most four images each, the best and the worst first.
        operating_points: `Comparison.operating_points`, as far as a class has one.
        confusions: of `confusion.confusions` at `SCORE_THRESHOLD`, the most frequent.
            Both are empty in files of releases before 0.2.
    """

    values: dict[str, _Score]
    class_ap: dict[str, _Score]
    iou_thresholds: tuple[_Score, ...]
    precision: tuple[Annotated[tuple[_Score, ...], _RECALLS], ...]
    best: tuple[RankedImage, ...]
    worst: tuple[RankedImage, ...]
    operating_points: dict[str, OperatingPoint] = field(default_factory=dict)
    confusions: tuple[Confusion, ...] = ()


@dataclass(frozen=True)
class _File:
    written_s: _Time
    kinds: dict[Literal['bbox', 'segm'], KeptScores]


def kept_scores(
    comparison: Comparison, scores: CocoScores, iou_thresholds: Sequence[float]
) -> KeptScores:
    """What is kept of an evaluation."""
    f1 = comparison.image_f1(SCORE_THRESHOLD)
    images = {image['id']: image for image in comparison.truth['images']}
    ranked = sorted(
        # Not printable: not UTF-8, or nothing that a page could name.
        (i for i in f1 if (images[i].get('file_name') or '\0').isprintable()),
        key=lambda image: (-f1[image], image),
    )
    count = min(_IMAGES, -(-len(ranked) // 2))
    best, worst = ranked[:count], ranked[::-1][: min(count, len(ranked) - count)]
    objects = _objects(comparison, {*best, *worst}, images)

    def shown(chosen: Sequence) -> tuple[RankedImage, ...]:
        return tuple(
            RankedImage(images[image]['file_name'], f1[image], *objects[image])
            for image in chosen
        )

    return KeptScores(
        values=scores.values,
        class_ap={printable(name): ap for name, ap in scores.class_ap.items()},
        iou_thresholds=tuple(map(float, iou_thresholds)),
        precision=tuple(map(tuple, scores.precision.round(4).tolist())),
        best=shown(best),
        worst=shown(worst),
        operating_points={
            printable(name): point
            for name, point in comparison.operating_points().items()
        },
        confusions=tuple(
            Confusion(
                *(name and printable(name) for name in (one.truth, one.found)),
                count=one.count,
            )
            for one in confusions(comparison, SCORE_THRESHOLD)[:_CONFUSIONS]
        ),
    )


def write_scores(path: str | Path, kept: Mapping[str, KeptScores]) -> None:
    """Write what is kept of each kind to a file.

    Raises:
        OSError: if that cannot be done; an earlier file stays as it is.
    """
    with replacing(path) as partial:
        partial.write_bytes(msgspec.json.encode(_File(time.time(), dict(kept))))


def read_scores(path: str | Path) -> tuple[float, dict[str, KeptScores]]:
    """When a file was written, in seconds since 1970, and its scores by kind.

    Raises:
        UserError: if it cannot be read, or is not as `write_scores` writes it.
    """
    try:
        with open(path, 'rb') as file:
            content = msgspec.json.decode(file.read(_MOST_BYTES), type=_File)
    except OSError as error:
        raise UserError(f'cannot read {path}: {error.strerror}') from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(
            f'{path} is damaged ({error}); validate or test again to have it written '
            'anew'
        ) from error
    return content.written_s, dict(sorted(content.kinds.items()))


def _objects(
    comparison: Comparison, wanted: set, images: Mapping[Any, Mapping]
) -> dict[Any, tuple[tuple[PaintedObject, ...], tuple[PaintedObject, ...]]]:
    """The objects, and what was found, of each wanted image."""
    names = {one['id']: printable(one['name']) for one in comparison.classes}
    objects: dict[Any, tuple[list, list]] = {image: ([], []) for image in wanted}
    records = (*comparison.truth.get('annotations', ()), *comparison.results)
    for one in records:
        image, score = one['image_id'], one.get('score')
        if image not in wanted or one['category_id'] not in names:
            continue
        if score is not None and not (
            is_finite(one, comparison.kind) and score >= SCORE_THRESHOLD
        ):
            continue
        mask = None
        if comparison.kind == 'segm':
            size = images[image]['width'], images[image]['height']
            mask = safe_mask.segmToRle(one['segmentation'], *size)
            mask = Mask(tuple(mask['size']), mask['counts'].decode())
        box = one.get('bbox') or (math.nan,)
        if not all(map(math.isfinite, box)):
            # Where masks are evaluated the box of a detection is not looked at.
            box = safe_mask.toBbox([vars(mask)])[0].tolist()
        objects[image][score is not None].append(
            PaintedObject(
                names[one['category_id']],
                tuple(map(float, box)),
                mask,
                score,
                bool(one.get('iscrowd')),
            )
        )
    return {i: (tuple(truth), tuple(found)) for i, (truth, found) in objects.items()}
