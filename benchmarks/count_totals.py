"""Totals of modelled times: each map's, times its calls in a network."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from benchmarks.shapes import SHAPES, Shape
from benchmarks.totals import row_kind


def _in_backbone(shape: Shape) -> bool:
    return shape.name.startswith(('stem', 'res'))


# Which norms a total is of, by shape and direction.
PARTS: dict[str, Callable[[Shape, str], bool]] = {
    'all': lambda shape, direction: True,
    # As fine-tuning has it: no backward pass of the stem and the first stage.
    'trained': lambda shape, direction: direction == 'fwd' or not shape.frozen,
    'backbone': lambda shape, direction: _in_backbone(shape),
    'rest': lambda shape, direction: not _in_backbone(shape),
    'trained backbone': lambda shape, direction: (
        _in_backbone(shape) and (direction == 'fwd' or not shape.frozen)
    ),
}


def totals(
    rows: Iterable[Mapping[str, object]], model: str, part: str = 'all'
) -> dict[tuple[str, ...], float]:
    """Milliseconds of a network's norms by (impl, label, dtype, layout, dir).

    `part` is a name of PARTS. What lacks a map of it has no total.
    """
    us: dict[tuple[str, ...], dict[tuple, float]] = defaultdict(dict)
    for row in rows:
        key = tuple(str(row[n]) for n in ('impl', 'label', 'dtype', 'layout', 'dir'))
        size = tuple(int(str(row[name])) for name in 'NCHW')
        us[key][size, row_kind(row)] = float(str(row['us']))
    found = {}
    for key, times in us.items():
        wanted = [s for s in SHAPES if PARTS[part](s, key[-1])]
        maps = [((s.N, s.C, s.H, s.W), s.kind) for s in wanted]
        if all(place in times for place in maps):
            found[key] = sum(
                shape.calls(model) * times[place] / 1e3
                for shape, place in zip(wanted, maps, strict=True)
            )
    return found
