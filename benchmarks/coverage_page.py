"""Write the tables of docs/coverage.md from what fusion_coverage.py measured.

    python benchmarks/coverage_page.py [--check]

`--check` writes nothing and fails if the page differs.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import marked  # noqa: E402
from benchmarks.results import FUSION_COUNTS, fusion_path, read_rows  # noqa: E402
from gn_det.fusion.core import HOSTS  # noqa: E402

PAGE = ROOT / 'docs' / 'coverage.md'
# The columns of the tables, and what is summed up in each.
KINDS = {
    'GN': ('norms',),
    'activation': ('relu', 'silu'),
    'addition': ('add',),
    'both': ('add_relu', 'add_silu'),
}
NONE = '–'
# The page says it once.
_USUAL = 'nothing follows it that could be fused'


def groups(rows: Iterable[dict]) -> list[list[dict]]:
    """The configs of each folder in which the same fuses, the best example first.

    Of configs without a model that could be built there is none.
    """
    found = collections.defaultdict(list)
    for row in sorted(rows, key=_example_order):
        if row['norms']:
            counts = tuple(row[name] for name in FUSION_COUNTS)
            found[folder_of(row), counts].append(row)
    return sorted(found.values(), key=lambda rows: folder_of(rows[0]))


def folder_of(row: dict) -> str:
    return row['config'].partition('/')[0]


def _example_order(row: dict) -> tuple:
    """A ResNet-50 before larger backbones, a short name before a long one."""
    config = row['config']
    return '_r50' not in config, len(config), config


def hosts_tables(rows: Sequence[dict]) -> str:
    """A table for each host, and the sum of all."""
    hosts = collections.defaultdict(list)
    for row in rows:
        host, _, name = row['model'].partition('-')
        cells = [f'{row["class"]} ({name})', *_counts([row]), _plain(row)]
        cells += [_number(row['difference']), _operators(row)]
        hosts[host].append(cells)
    parts = []
    for host in filter(hosts.get, HOSTS):
        lines = hosts[host]
        columns = ['model', *KINDS, 'plain', 'difference', 'operators']
        if all(line[-1] == NONE for line in lines):
            columns, lines = columns[:-1], [line[:-1] for line in lines]
        parts.append(f'### {host}\n\n{marked.table(columns, lines)}')
    return '\n\n'.join([*parts, f'In all: {_sum(rows, "models")}', _measured(rows)])


def configs_table(rows: Sequence[dict], runs: Sequence[dict]) -> str:
    """A row for all configs of a folder in which the same fuses, and the sum."""
    run = {row['config']: row for row in runs}
    lines = []
    for examples in groups(rows):
        first = examples[0]
        result = run.get(first['config'], {'fuse': '', 'why': 'it is new'})
        if result['fuse']:
            result = f'{_number(result["override"])}, {_number(result["fuse"])}'
        else:
            result = f'not run: {result["why"]}'
        cells = [f'`{first["config"]}`', len(examples), *_counts([first])]
        lines.append([*cells, _plain(first), result])
    columns = ['config', 'configs', *KINDS, 'plain', 'difference']
    built = [row for row in rows if row['norms']]
    folders = len({folder_of(row) for row in built})
    total = f'In all: {_sum(built, "configs")} They are of {folders} folders.'
    return '\n\n'.join([marked.table(columns, lines), total, _measured(built)])


def operators_table(rows: Sequence[dict]) -> str:
    """Which operators the configs of which folders need."""
    found = collections.defaultdict(collections.Counter)
    for row in rows:
        if row['norms']:
            found[_operators(row)][folder_of(row)] += 1
    lines = [[names, _tally(folders)] for names, folders in sorted(found.items())]
    return marked.table(['operators', 'configs'], lines)


def left_out(rows: Sequence[dict]) -> str:
    """The configs that could not be built, by reason."""
    found = collections.defaultdict(collections.Counter)
    for row in rows:
        if not row['norms']:
            found[row['why']][folder_of(row)] += 1
    lines = [f'- {why}: {_tally(folders)}' for why, folders in sorted(found.items())]
    return '\n'.join(lines)


def _tally(folders: Mapping[str, int]) -> str:
    return ', '.join(f'{folder} {n}' for folder, n in sorted(folders.items()))


def _counts(rows: Sequence[dict]) -> list[int]:
    return [
        sum(int(row[key]) for row in rows for key in keys) for keys in KINDS.values()
    ]


def _plain(row: dict) -> str:
    """How many norms take nothing in, and why, where the reason is not the usual."""
    reasons = [text.partition(' ') for text in row['why'].split(' | ') if text]
    rest = [
        reason if n == row['plain'] else f'{n} × {reason}'
        for n, _, reason in reasons
        if reason != _USUAL
    ]
    return f'{row["plain"]}: {", ".join(rest)}' if rest else row['plain']


def _sum(rows: Sequence[dict], what: str) -> str:
    norms, act, add, both = _counts(rows)
    plain, untouched = (
        sum(int(row[key]) for row in rows) for key in ('plain', 'untouched')
    )
    return (
        f'{len(rows)} {what} with {norms} norms: {act} with activation, {add} with '
        f'addition, {both} with both, {plain} plain, {untouched} not taken over.'
    )


def _number(text: str) -> str:
    return f'{float(text):.2g}'


def _operators(row: dict) -> str:
    return ', '.join(row['operators'].split()) or NONE


def _measured(rows: Sequence[dict]) -> str:
    hosts, versions, dates = (
        ', '.join(sorted({row[key] for row in rows}))
        for key in ('host', 'torch', 'date')
    )
    return f'*Measured* on a CPU, {dates}: {hosts}; torch {versions}.'


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 1 where `--check` finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--check', action='store_true')
    args = parser.parse_args(argv)
    hosts, configs, runs = (
        read_rows(fusion_path(what)) for what in ('hosts', 'configs', 'runs')
    )
    parts = {
        'hosts': hosts_tables(hosts),
        'configs': configs_table(configs, runs),
        'operators': operators_table(configs),
        'left out': left_out(configs),
    }
    return marked.write(PAGE, parts, args.check)


if __name__ == '__main__':
    sys.exit(main())
