"""mmengine's Runner, with training that can be stopped and resumed anywhere."""

from __future__ import annotations

import functools
from typing import Any

from mmengine.runner import Runner
from torch.utils.data import DataLoader

from gn_det.workbench.runtime.loops import resumable
from gn_det.workbench.runtime.stopping import outlive_signals


def resumable_runner(base: type[Runner]) -> type[Runner]:
    """A subclass of mmengine's Runner, or of a config's own."""

    class ResumableRunner(base):
        """Loops that go on anywhere, workers that live as long as the training."""

        has_begun = False

        def build_train_loop(self, loop: Any) -> Any:
            """Build that of `loops` for mmengine's own."""
            return super().build_train_loop(resumable(loop))

        @staticmethod
        def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
            """Build it with workers that a signal to all processes leaves alone."""
            loader = base.build_dataloader(*args, **kwargs)
            loader.worker_init_fn = functools.partial(
                outlive_signals, then=loader.worker_init_fn
            )
            return loader

        def dump_config(self) -> None:
            """Not before a step is trained: that of an earlier run lies there."""
            if self.has_begun:
                super().dump_config()

    return ResumableRunner
