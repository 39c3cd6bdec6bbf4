"""One self-contained HTML page about a training run, or about several."""

from gn_det.workbench.report.comparison import check_runs, write_comparison
from gn_det.workbench.report.run_page import report_at_end, write_report

__all__ = ['check_runs', 'report_at_end', 'write_comparison', 'write_report']
