"""Tables and figures of the claims, from the records of studies/run.py alone.

    python studies/figures.py                       # studies/README.md and its figures
    python studies/figures.py work_dirs/studies/results    # of your own runs

Without a folder it takes the committed records of studies/results, replaces the tables
in studies/README.md and draws studies/figures. With one it writes `tables.md` and the
figures beside the records.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from gn_det.workbench.errors import UserError
from gn_det_cli.process import report_errors
from studies.claims import CLAIMS
from studies.drawing import draw
from studies.records import read_records
from studies.tables import Records, caption, table

HERE = Path(__file__).resolve().parent
PAGE, RESULTS, FIGURES = HERE / 'README.md', HERE / 'results', HERE / 'figures'
_BLOCK = re.compile(r'<!-- table ([a-z]) -->.*?<!-- end -->', re.DOTALL)


def blocks(records: Records) -> dict[str, str]:
    """Per claim its caption and its table, as the page has them between its marks."""
    return {
        key: f'{table(claim, records)}\n\n{caption(claim, records)}'
        for key, claim in CLAIMS.items()
    }


def filled(page: str, found: dict[str, str]) -> str:
    """The page with the tables in the places marked `<!-- table a -->`."""
    return _BLOCK.sub(
        lambda match: f'<!-- table {match[1]} -->\n{found[match[1]]}\n<!-- end -->',
        page,
    )


def own_page(found: dict[str, str]) -> str:
    """The tables of somebody's own records."""
    parts = [
        f'## {key}. {CLAIMS[key].title}\n\n{text}\n\n![]({key}.png)\n'
        for key, text in found.items()
    ]
    return '\n'.join(['# The claims, measured here\n', *parts])


@report_errors()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('results', nargs='?', type=Path, help='folder of records')
    folder = parser.parse_args().results or RESULTS
    records = read_records(folder)
    if not records:
        raise UserError(f'no records in {folder}; run studies/run.py first')
    committed = folder.resolve() == RESULTS
    figures = FIGURES if committed else folder
    page = PAGE if committed else folder / 'tables.md'
    found = blocks(records)
    page.write_text(filled(page.read_text(), found) if committed else own_page(found))
    figures.mkdir(exist_ok=True)
    for key, claim in CLAIMS.items():
        draw(claim, records).savefig(figures / f'{key}.png', dpi=110)
    sys.stdout.write(f'wrote {page} and {len(CLAIMS)} figures in {figures}\n')


if __name__ == '__main__':
    main()
