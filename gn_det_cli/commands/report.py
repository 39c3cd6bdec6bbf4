"""Write report.html into the work directory of each run, finished or not; for several
runs also a page that compares them."""

from __future__ import annotations

import argparse

from gn_det_cli.process import quiet_imports


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Runs and pages."""
    parser.add_argument('work_dirs', nargs='+', metavar='WORK_DIR')
    parser.add_argument(
        '--out',
        help='the page: of one run instead of WORK_DIR/report.html, or of several '
        'compared instead of comparison.html',
    )
    parser.add_argument(
        '--data-root', help='where the data are now, if not where the config says'
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write the pages, and name them."""
    with quiet_imports():
        from gn_det.workbench.report import check_runs, write_comparison, write_report
        from gn_det.workbench.runtime.outputs import check_file
    if args.out:
        check_file(args.out, '--out')
    if len(args.work_dirs) == 1:
        print(write_report(args.work_dirs[0], args.data_root, args.out))
        return
    page = args.out or 'comparison.html'
    check_runs(args.work_dirs, page)
    for work_dir in args.work_dirs:
        print(write_report(work_dir, args.data_root))
    print(write_comparison(args.work_dirs, page))
