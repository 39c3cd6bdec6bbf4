"""What the command-line tools need around mmengine's Runner: checks and clear words.

The Runner trains and tests; this package loads a config, looks at the data and the
checkpoint before a long run starts, and turns mistakes people make into one line.
"""

from gn_det.runtime.errors import UserError, report_errors

__all__ = ['UserError', 'report_errors']
