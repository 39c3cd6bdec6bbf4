"""One self-contained HTML page about a training run, or about several."""

from gn_det.report.page import report_at_end, write_comparison, write_report

__all__ = ['report_at_end', 'write_comparison', 'write_report']
