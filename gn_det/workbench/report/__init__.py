"""One self-contained HTML page about a training run, or about several."""

from gn_det.workbench.report.page import (
    check_runs,
    report_at_end,
    write_comparison,
    write_report,
)

__all__ = ['check_runs', 'report_at_end', 'write_comparison', 'write_report']
