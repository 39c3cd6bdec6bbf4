"""Means, spreads and tables of the claims, from the records and nothing else."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gn_det.workbench.errors import UserError
from studies.claims import Cell, Claim

Records = Sequence[Mapping[str, Any]]


def values(cell: Cell, records: Records) -> list[float]:
    """The cell's figure in every run of its case, in the order of the seeds."""
    case = vars(cell.case)
    runs = [record for record in records if record['case'] == case]
    runs.sort(key=lambda record: record['seed'])
    return [record['figures'][cell.figure] for record in runs]


def claim_records(claim: Claim, records: Records) -> list[Mapping[str, Any]]:
    """The records of a claim's cases."""
    cases = [vars(case) for case in claim.cases]
    return [record for record in records if record['case'] in cases]


def table(claim: Claim, records: Records) -> str:
    """A Markdown table: mean ± sample standard deviation, and the paper's figure.

    Raises:
        UserError: if runs of one task differ in size, which no table may mix.
    """
    own = claim_records(claim, records)
    _check_one_size(claim, own)
    header = [claim.corner]
    for column in claim.columns:
        header += [column, 'paper']
    lines = [header, ['---'] * len(header)]
    for name, cells in claim.rows:
        line = [name]
        for cell in cells:
            line += [spread(values(cell, own)), _paper(cell.paper)]
        lines.append(line)
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def spread(found: Sequence[float]) -> str:
    """`12.3 ± 0.4`; one run has no spread and no run no mean.

    A run whose figure is not a number counts in neither and is mentioned.
    """
    if not found:
        return 'not measured'
    numbers = finite(found)
    lost = len(found) - len(numbers)
    note = f'{lost} of {len(found)} not a number' if lost else ''
    if not numbers:
        return note
    mean = f'{statistics.mean(numbers):.1f}'
    text = f'{mean} ± {statistics.stdev(numbers):.1f}' if len(numbers) > 1 else mean
    return f'{text} ({note})' if lost else text


def finite(found: Sequence[float]) -> list[float]:
    """The figures that are numbers."""
    return [value for value in found if math.isfinite(value)]


def caption(claim: Claim, records: Records) -> str:
    """What the table holds, and where, when and with what it was measured."""
    own = claim_records(claim, records)
    if not own:
        return f'Not measured: {claim.measured}. *Paper*: {claim.paper}.'
    seeds = f'the seeds {_listed(record["seed"] for record in own)}'
    by_case = [
        {record['seed'] for record in own if record['case'] == vars(case)}
        for case in claim.cases
    ]
    if any(found != by_case[0] for found in by_case if found):
        seeds += ', of which not every cell has all'
    facts = '; '.join(_listed(record[key] for record in own) for key in _FACTS)
    return (
        f'*Measured*: {claim.measured}, mean ± standard deviation over '
        f'{seeds}; {facts}. *Paper*: {claim.paper}.'
    )


_FACTS = ('machine', 'packages', 'commit', 'date')


def _listed(found: Iterable[object]) -> str:
    """`0`, `0 and 1` or `0, 1 and 2`: each once, in order."""
    *others, last = map(str, sorted(set(found)))
    return f'{", ".join(others)} and {last}' if others else last


def _paper(value: float | None) -> str:
    return '–' if value is None else f'{value:.1f}'


def _check_one_size(claim: Claim, records: Records) -> None:
    sizes = {repr(sorted(record['size'].items())) for record in records}
    if len(sizes) > 1:
        raise UserError(
            f'the records of claim {claim.key} are of runs of different size; remove '
            'the older ones'
        )
