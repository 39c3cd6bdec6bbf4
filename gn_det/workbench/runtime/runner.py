"""From a config to a Runner that trains or tests."""

from __future__ import annotations

import contextlib
import signal
import sys
from argparse import Namespace

import matplotlib
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmdet.registry import MODELS, RUNNERS
from mmdet.utils import setup_cache_size_limit_of_dynamo
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import barrier
from mmengine.logging import print_log
from mmengine.runner import Runner

from gn_det.models import FusedDetector
from gn_det.workbench.errors import UserError
from gn_det.workbench.evaluation.evaluators import keep_scores
from gn_det.workbench.evaluation.same_shape import batch_by_shape
from gn_det.workbench.inputs import checkpoints
from gn_det.workbench.inputs.annotations import share_with_mmdet
from gn_det.workbench.inputs.building import name_wrong_settings, registered
from gn_det.workbench.inputs.data import check_data
from gn_det.workbench.inputs.image_loading import name_broken_images
from gn_det.workbench.report import report_at_end
from gn_det.workbench.runtime.distributed import (
    check_launcher,
    close_distributed,
    is_first,
    name_lost_process,
    prepare_distributed,
)
from gn_det.workbench.runtime.lr_scaling import check_resumed_length, stretch_iterations
from gn_det.workbench.runtime.outputs import make_folder, make_folder_of
from gn_det.workbench.runtime.progress import ProgressHook, enable_tensorboard
from gn_det.workbench.runtime.quiet_runner import QuietRunner
from gn_det.workbench.runtime.resumable_runner import resumable_runner
from gn_det.workbench.runtime.resuming import (
    ResumeHook,
    find_resume_checkpoint,
    seed_of,
)
from gn_det.workbench.runtime.saving import keep_best, save_checkpoints_atomically
from gn_det.workbench.runtime.starting import (
    StartHook,
    fetch_start,
    skip_pretrained_backbone,
)
from gn_det.workbench.runtime.stopping import (
    StopHook,
    Stopped,
    StopRequest,
)
from gn_det.workbench.runtime.work_dir import held, name_full_disk


def build_runner(
    cfg: Config,
    splits: tuple[str, ...],
    results_file: str | None = None,
    verbose: bool = False,
    training: contextlib.ExitStack | None = None,
) -> Runner:
    """Check what is read and written, prepare batches and processes, build the Runner.

    Args:
        cfg: a whole config.
        splits: of the data: `'train'`, `'val'`, `'test'`.
        results_file: what `--out` names, written when all has been computed.
        verbose: show environment, config and hooks, which are logged in any case.
        training: for a run that can be resumed, which keeps others out of its work
            directory until this is closed.

    Raises:
        UserError: for missing or wrong data, a checkpoint that cannot be read, a place
            that cannot be written to or is another run's, and a launcher that was not
            launched.
    """
    odd = check_data(cfg, splits)
    for split in splits:
        if split != 'train':
            batch_by_shape(cfg, split)
    if cfg.get('load_from'):
        # Before there is a work directory: the Runner makes one when it is built.
        checkpoints.load_state_dict(cfg.load_from)
    check_launcher(cfg)
    make_folder(cfg.work_dir, '--work-dir')
    if results_file is not None:
        make_folder_of(results_file, '--out')
    if training is not None and is_first(cfg):
        # The other processes wait for this one, and end with it.
        training.enter_context(held(cfg.work_dir))
    prepare_distributed(cfg)
    setup_cache_size_limit_of_dynamo()
    save_checkpoints_atomically()
    share_with_mmdet()
    runner_class = Runner if verbose else QuietRunner
    if 'runner_type' in cfg:
        runner_class = RUNNERS.get(cfg.runner_type)
    if training is not None:
        runner_class = resumable_runner(runner_class)
    runner = runner_class.from_cfg(cfg)
    name_broken_images(runner)
    for note in odd:
        runner.logger.warning(note)
    return runner


def enable_amp(cfg: Config) -> None:
    """Train in mixed precision with dynamic loss scaling (`--amp`).

    Raises:
        UserError: on a machine without an accelerator, where mmengine has no AMP.
    """
    if get_device() == 'cpu':
        raise UserError('--amp needs a GPU and none was found; train without it')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    cfg.optim_wrapper.loss_scale = 'dynamic'


def enable_channels_last(cfg: Config) -> None:
    """Keep model and maps in torch.channels_last (`--channels-last`).

    Raises:
        UserError: for a detector type that has no such setting.
    """
    kind = cfg.model.get('of') or cfg.model.get('type')
    detector = registered(MODELS, kind)
    if not (isinstance(detector, type) and issubclass(detector, FusedDetector)):
        known = ', '.join(
            sorted(cls.__name__ for cls in FusedDetector.__subclasses__())
        )
        raise UserError(
            f'--channels-last: model.type of {cfg.filename} is {kind}, which has no '
            f'such setting; it works with {known}'
        )
    cfg.model.channels_last = True


def enable_lr_scaling(cfg: Config) -> None:
    """Scale the learning rate with the batch size (`--auto-scale-lr`).

    A schedule counted in iterations is stretched, so that it sees as many images.

    Raises:
        UserError: if the config does not say for which batch size its rate is meant, or
            has a schedule that cannot be stretched.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UserError(
            f'auto_scale_lr: {cfg.filename} has no auto_scale_lr.base_batch_size; '
            'add auto_scale_lr=dict(base_batch_size=16) with the batch size its '
            'learning rate is meant for'
        )
    stretch_iterations(cfg)
    cfg.auto_scale_lr.enable = True


def show_predictions(cfg: Config, args: Namespace) -> None:
    """Paint the predictions of a test run (`--show`, `--wait-time`, `--show-dir`).

    Raises:
        UserError: if the config has no visualization hook to do it, or there is no
            display for `--show`.
    """
    # Without one, matplotlib falls back to a canvas that nobody sees.
    if args.show and matplotlib.get_backend().lower() == 'agg':
        raise UserError('--show: there is no display; --show-dir saves the images')
    try:
        trigger_visualization_hook(cfg, args)
    except RuntimeError as error:
        raise UserError(
            f'--show and --show-dir: {cfg.filename} has no '
            "default_hooks.visualization; add dict(type='DetVisualizationHook')"
        ) from error


def set_resume(cfg: Config, resume: str | None) -> None:
    """Resume from a checkpoint, or with `'auto'` from the newest whole one.

    Raises:
        UserError: if the named file is missing or damaged.
    """
    if resume is None:
        return
    if resume == 'auto':
        resume = find_resume_checkpoint(
            cfg.work_dir, checkpoints.checkpoint_folder(cfg)
        )
        if resume is None:
            print_log('--resume: there is no checkpoint to go on from; starting anew')
            cfg.resume = False
            return
    seed = seed_of(resume)
    if seed is not None:
        cfg.merge_from_dict({'randomness.seed': seed})
    cfg.resume, cfg.load_from = True, resume


def run_training(cfg: Config, verbose: bool = False) -> None:
    """Train, validating as often as the config asks for it, and report.

    The report is written to `report.html` in the work directory, also when the run is
    interrupted or fails after its first logged iteration. SIGINT, SIGTERM and SIGHUP
    end a run after the step it is at with a checkpoint that `--resume` goes on from.
    `verbose` is that of `build_runner`.

    Raises:
        UserError: for wrong data, a checkpoint that cannot be read, a place that cannot
            be written to or is another run's, and a launcher that was not launched.
        KeyboardInterrupt: when SIGINT has stopped the run.
        SystemExit: with 128 and the signal's number when another one has.
    """
    enable_tensorboard(cfg)
    keep_scores(cfg, 'val')
    keep_best(cfg)
    fetch_start(cfg)
    checkpoints.prepare_resume(cfg)
    check_resumed_length(cfg)
    try:
        with (
            name_wrong_settings(cfg),
            name_full_disk(cfg.work_dir),
            name_lost_process(cfg),
            contextlib.ExitStack() as training,
        ):
            _train(build_runner(cfg, ('train', 'val'), None, verbose, training))
    except Stopped as stopped:
        signum = stopped.signum
    else:
        return
    with name_lost_process(cfg):
        # The launcher kills what is left when one process has ended, and the first may
        # still be writing the report.
        barrier()
    # Nothing holds the Runner any more.
    close_distributed()
    if signum == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + signum)


def _train(runner: Runner) -> None:
    request, at_end = StopRequest(), contextlib.ExitStack()

    def begin() -> None:
        # Those of an earlier run in the folder are left alone by a start that fails.
        runner.has_begun = True
        runner.dump_config()
        at_end.enter_context(report_at_end(runner.work_dir))

    hooks = (StartHook(), ProgressHook(), ResumeHook(begin), StopHook(request))
    for hook in hooks:
        runner.register_hook(hook)
    if load_from := runner.cfg.get('load_from'):
        exact = bool(runner.cfg.get('resume'))
        checkpoints.check_fit(runner.model, load_from, exact)
        if not exact:
            state = checkpoints.load_state_dict(load_from)
            skip_pretrained_backbone(runner.model, state)
    with at_end, request.listening():
        runner.train()


def run_test(
    cfg: Config, results_file: str | None = None, verbose: bool = False
) -> dict[str, float]:
    """Evaluate `cfg.load_from` on the test set.

    Args:
        cfg: the config, with the checkpoint in `load_from`.
        results_file: also dump the predictions to this `.pkl` file.
        verbose: as in `build_runner`.

    Returns:
        The scores of the evaluators, AP from 0 to 1.

    Raises:
        UserError: for wrong data, or a checkpoint that does not match the model.
    """
    with name_wrong_settings(cfg):
        runner = build_runner(cfg, ('test',), results_file, verbose)
        checkpoints.check_fit(runner.model, cfg.load_from)
        if results_file is not None:
            runner.test_evaluator.metrics.append(DumpDetResults(results_file))
        return runner.test()
