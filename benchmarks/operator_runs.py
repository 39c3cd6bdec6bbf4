"""Really run configs of mmdet on tensors that claim CUDA: one step, one prediction.

    python benchmarks/operator_runs.py CONFIG …

Each model is shrunk (one block a stage, few layers and queries, images of 128 × 128),
trained for one step of SGD, and asked for its predictions, in which the operators of
`mmcv._ext` that are called are recorded and compared with those that
operator_coverage.py reads off the code. Results are no model's: it is the paths that
count.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# First: mmdet's modules hold None for what they could not import from mmcv.ops.
import gn_det  # noqa: F401, I001
from mmdet.testing import demo_mm_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger

from benchmarks.operator_coverage import (
    CONFIGS,
    LARGER_MAPS,
    operators_of,
    without_extras,
)
from benchmarks.pretend_cuda import module_to_pretend_cuda, pretend_cuda
from gn_det.compat.operators import OPERATORS


def shrink(config: object) -> None:
    """Fewer layers and queries, no downloads, and no detection too weak; in place."""
    if isinstance(config, dict):
        for key, value in config.items():
            # Images are padded to those of training.
            if key in ('init_cfg', 'batch_augments'):
                config[key] = None
            elif key == 'depths':
                config[key] = [1] * len(value)
            elif key in ('encoder', 'decoder') and 'num_layers' in value:
                config[key].num_layers = 2
            elif key == 'num_queries' and value > 60:
                config[key] = 60
            elif key == 'stacked_convs' and value > 1:
                config[key] = 1
            elif key in ('num', 'max_per_img') and isinstance(value, int):
                config[key] = min(value, 32)
            elif key in ('score_thr', 'mask_thr', 'filter_thr'):
                config[key] = 0.0
            else:
                shrink(value)
    elif isinstance(config, (list, tuple)):
        for item in config:
            shrink(item)


@contextlib.contextmanager
def one_block_a_stage() -> Iterator[None]:
    from mmdet.models import backbones

    with contextlib.ExitStack() as stack:
        for backbone in vars(backbones).values():
            settings = getattr(backbone, 'arch_settings', None)
            if isinstance(settings, dict) and isinstance(next(iter(settings)), int):
                small = {
                    depth: (setting[0], (1,) * len(setting[1]))
                    for depth, setting in settings.items()
                    if isinstance(setting[0], type)
                }
                stack.enter_context(mock.patch.dict(settings, small))
        yield


@contextlib.contextmanager
def recorded() -> Iterator[set[str]]:
    """The operators of `mmcv._ext` called within."""
    module, names = importlib.import_module('mmcv._ext'), set()

    def record(name: str, operator: object) -> object:
        @functools.wraps(operator)
        def calls(*args: object, **kwargs: object) -> object:
            names.add(name)
            return operator(*args, **kwargs)

        return calls

    with contextlib.ExitStack() as stack:
        for name, operator in OPERATORS.items():
            stack.enter_context(mock.patch.object(module, name, record(name, operator)))
        yield names


def batch(
    model: nn.Module, classes: int, training: bool, with_mask: bool = True
) -> dict:
    # mmcv's masked convolution, which prediction may use, takes one image.
    images = 2 if training else 1
    inputs = demo_mm_inputs(
        images,
        [(3, 128, 128)] * images,
        num_items=[3, 2][:images],
        num_classes=classes,
        with_mask=with_mask,
        with_semantic=training,
    )
    return model.data_preprocessor(inputs, training)


def classes_of(config: object) -> int:
    """The smallest number of classes that a part has, RPNs aside."""
    found = []

    def walk(part: object) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                if key in ('num_classes', 'num_things_classes'):
                    found.append(value)
                walk(value)
        elif isinstance(part, (list, tuple)):
            for item in part:
                walk(item)

    walk(config)
    # Masks of semantic segmentation are bytes.
    return min([n for n in found if isinstance(n, int) and n > 1] + [200])


def run(name: str) -> tuple[set[str], set[str]]:
    """Returns the operators that were called, and those that were predicted."""
    from mmdet.registry import MODELS

    config = Config.fromfile(CONFIGS / name)
    register_all_modules()
    without_extras(config.model)
    shrink(config.model)
    torch.manual_seed(0)
    MMLogger.get_current_instance().setLevel('ERROR')
    with one_block_a_stage():
        model = MODELS.build(config.model)
        model.init_weights()
    expected = operators_of(model, config)
    model = module_to_pretend_cuda(model)
    for part in model.modules():
        # Where a preprocessor puts its data, which `Module.to` would have set.
        if hasattr(part, '_device'):
            part._device = torch.device('cuda', 0)
    classes = classes_of(config.model)
    # BoxInst and TOOD ask how far training has come.
    for count in ('iter', 'epoch'):
        MessageHub.get_current_instance().update_info(count, 1)
    with pretend_cuda(), recorded() as called:
        data = batch(model, classes, training=True)
        model.train()
        losses = model(**data, mode='loss')
        loss, _ = model.parse_losses(losses)
        loss.backward()
        leaves = [p for p in model.parameters() if p.requires_grad]
        torch.optim.SGD(leaves, lr=1e-4).step()
        assert any(p.grad is not None and p.grad.is_cuda for p in leaves)
        model.eval()
        with torch.no_grad():
            model(**batch(model, classes, training=False), mode='predict')
    return called, expected


def main(names: list[str]) -> int:
    failed = 0
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')
                called, expected = run(name)
        # Whatever a host raises: the other configs still run.
        except Exception as error:
            failed += 1
            place = traceback.extract_tb(error.__traceback__)[-1]
            print(name, 'failed:', error, f'({place.filename}:{place.lineno})')
            if len(names) == 1:
                raise
            continue
        print(name, 'called', *sorted(called))
        for title, rest in (
            ('not foreseen', called - expected),
            ('not called', expected - called - {LARGER_MAPS}),
        ):
            if rest:
                print(f'  {title}:', *sorted(rest))
    return min(failed, 1)


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
