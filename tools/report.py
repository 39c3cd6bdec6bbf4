"""Report on training runs: `python tools/report.py WORK_DIR [WORK_DIR…]`."""

from __future__ import annotations

import argparse

from gn_det.workbench.errors import report_errors
from gn_det.workbench.report import check_runs, write_comparison, write_report
from gn_det.workbench.runtime.outputs import check_file


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Write report.html into the work directory of each run, finished '
        'or not, and for several runs a page that compares them'
    )
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR')
    parser.add_argument(
        '--out',
        default='comparison.html',
        help='the page that compares several runs; default %(default)s',
    )
    parser.add_argument(
        '--data-root', help='where the data are now, if not where the config says'
    )
    return parser.parse_args()


@report_errors
def main() -> None:
    args = parse_args()
    check_runs(args.work_dirs)
    if len(args.work_dirs) > 1:
        check_file(args.out, '--out')
    for work_dir in args.work_dirs:
        print(write_report(work_dir, args.data_root))
    if len(args.work_dirs) > 1:
        print(write_comparison(args.work_dirs, args.out))


if __name__ == '__main__':
    main()
