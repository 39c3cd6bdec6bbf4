"""Images held out for validation where a set has none of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

# Of the images, and at most so many: more make a validation slow and not much surer.
SHARE, MOST = 0.1, 2000
_TRIES = 50


def split(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A COCO file's content as one to train on and one to validate on.

    The same file gives the same split. Of the draws that are tried the first is taken
    in which most classes have objects on both sides.

    Args:
        content: of `check_annotations`, with two images or more that have objects.
    """
    images = [image['id'] for image in content['images']]
    of_class: dict[Any, set[Any]] = defaultdict(set)
    for one in content['annotations']:
        of_class[one['category_id']].add(one['image_id'])
    count = min(max(round(SHARE * len(images)), 1), MOST)
    draws = (
        {
            images[i]
            for i in np.random.default_rng(seed).permutation(len(images))[:count]
        }
        for seed in range(_TRIES)
    )
    held_out = min(draws, key=lambda draw: _one_sided(draw, list(of_class.values())))
    return _part(content, held_out, False), _part(content, held_out, True)


def _one_sided(held_out: set, of_class: Sequence[set]) -> int:
    """Classes that one side lacks; one that training lacks counts more."""
    lacking = sum(not having & held_out for having in of_class)
    return lacking + 1000 * sum(not having - held_out for having in of_class)


def _part(
    content: Mapping[str, Any], held_out: set, of_held_out: bool
) -> dict[str, Any]:
    return {
        **content,
        'images': [
            one for one in content['images'] if (one['id'] in held_out) == of_held_out
        ],
        'annotations': [
            one
            for one in content['annotations']
            if (one['image_id'] in held_out) == of_held_out
        ],
    }
