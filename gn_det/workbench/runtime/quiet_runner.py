"""mmengine's Runner with less on the screen."""

from __future__ import annotations

import logging

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from gn_det.workbench.evaluation.kinds import KINDS

_FRACTIONS = tuple(f'coco/{kind}_mAP' for kind in KINDS)
_BEGINNINGS = ('before_train', 'before_val', 'before_test')


class QuietRunner(Runner):
    """Shows what it is set up with in the log file only.

    Environment, config, table of hooks and the optimiser's settings of each parameter
    are some 600 lines. AP from 0 to 1 is in the file only too: `ProgressHook` and the
    commands show it in percent. Warnings and lines of other kinds are shown.
    """

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build the logger; until the run begins the screen gets short lines only."""
        logger = super().build_logger(*args, **kwargs)
        for handler in _on_screen(logger):
            handler.addFilter(_is_short)
            handler.addFilter(_has_no_fraction)
        return logger

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """Call the hooks; where they are told of a beginning, all lines are shown."""
        if fn_name in _BEGINNINGS:
            for handler in _on_screen(self.logger):
                handler.removeFilter(_is_short)
        super().call_hook(fn_name, **kwargs)


def _on_screen(logger: MMLogger) -> list[logging.Handler]:
    return [h for h in logger.handlers if type(h) is logging.StreamHandler]


def _is_short(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    is_table = '\n' in text or text.startswith('paramwise_options')
    return record.levelno > logging.INFO or not is_table


def _has_no_fraction(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return record.levelno > logging.INFO or not any(key in text for key in _FRACTIONS)
