"""Network-weighted totals: each measured call times its count in a network."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from benchmarks.bytes_model import gbps, moved_bytes, network_layers
from benchmarks.cases import DTYPES


@dataclass(frozen=True)
class Total:
    """All norms of one network in one direction, by one implementation."""

    model: str
    dtype: str
    layout: str
    dir: str
    cache: str
    impl: str
    layers: int
    ms: float
    gbps: float
    frac_of_copy: float

    @property
    def complete(self) -> bool:
        """Whether every norm of the network was measured and passed its gate."""
        return self.layers == network_layers(self.model)


def row_kind(row: Mapping[str, object]) -> str:
    """'plain', 'relu' or 'residual_relu' of a row of the CSV."""
    if not int(row['relu']):
        return 'plain'
    return 'residual_relu' if int(row['residual']) else 'relu'


def row_bytes(row: Mapping[str, object]) -> int:
    """Bytes by the model for one call of a row of the CSV."""
    elements = 1
    for name in 'NCHW':
        elements *= int(row[name])
    itemsize = DTYPES[str(row['dtype'])].itemsize
    return moved_bytes(str(row['dir']), row_kind(row), elements, itemsize)


def network_totals(rows: Iterable[Mapping[str, object]], model: str) -> list[Total]:
    """Totals of a model from rows of the CSV, one per implementation and setting."""
    layers = defaultdict(int)
    ms = defaultdict(float)
    nbytes = defaultdict(float)
    copy_ms = defaultdict(float)
    for row in rows:
        count = int(row[f'count_{model}'])
        if count == 0:
            continue
        key = tuple(str(row[n]) for n in ('dtype', 'layout', 'dir', 'cache', 'impl'))
        layers[key] += count
        ms[key] += count * float(row['ms_p50'])
        nbytes[key] += count * row_bytes(row)
        copy_ms[key] += count * float(row['ms_p50']) * float(row['frac_of_copy'])
    return [
        Total(
            model,
            *key,
            layers=layers[key],
            ms=ms[key],
            gbps=gbps(nbytes[key], ms[key]),
            frac_of_copy=copy_ms[key] / ms[key],
        )
        for key in ms
    ]
