"""What COCO evaluates, boxes and masks, and the words for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of evaluation.

    Attributes:
        name: of one, for tables.
        things: of several, for sentences.
        field: where COCO's annotations and results have it.
    """

    name: str
    things: str
    field: str


# By COCO's own names, of which the keys of all scores are made.
KINDS = {
    'bbox': Kind('box', 'boxes', 'bbox'),
    'segm': Kind('mask', 'masks', 'segmentation'),
}
