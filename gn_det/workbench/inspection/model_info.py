"""What a config's model is: its size, its work, its norms (`gn-det info CONFIG`)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from gn_det import fuse
from gn_det.fusion.recomputing import Recomputing
from gn_det.workbench.errors import UserError
from gn_det.workbench.inputs.building import name_wrong_settings, type_name
from gn_det.workbench.inputs.config_parts import leaf_datasets
from gn_det.workbench.inputs.data import class_names
from gn_det.workbench.inspection.kept_memory import REGIONS, kept_by, run_parts
from gn_det.workbench.zoo.index import find

Rows = Iterator[tuple[str, str]]

# Proposals of a test image, and the most of its objects that get a mask.
_TEST_REGIONS = (1000, 100)
_GIB = 2**30
# Where no pipeline says one: COCO's.
_DEFAULT_SIZE = (800, 1333)
_SHOWN_CLASSES = 8


def model_rows(cfg: Config, size: tuple[int, int] | None = None) -> Rows:
    """What there is to say of a model, as names and texts.

    It is built and run on fake tensors, which hold no data: nothing is downloaded and
    little is computed.

    Args:
        cfg: a whole config.
        size: height and width of an image before padding; by default the size to
            which the test pipeline resizes.

    Raises:
        UserError: if the model cannot be built.
    """
    register_all_modules(init_default_scope=True)
    size = _padded(size or _test_size(cfg), cfg)
    batch = (cfg.get('train_dataloader') or {}).get('batch_size') or 1
    yield 'config', str(cfg.filename)
    logger = MMLogger.get_current_instance()
    before = logger.level
    # A fused model says so when it is built; it is said below.
    logger.setLevel('WARNING')
    try:
        with FakeTensorMode(), name_wrong_settings(cfg):
            model = MODELS.build(cfg.model).train()
    finally:
        logger.setLevel(before)
    classes = class_names(leaf_datasets(cfg.test_dataloader.dataset)[0])
    yield 'model', f'{type_name(cfg.model)}{_of_classes(classes)}'
    yield 'starts from', _start(cfg)
    yield from _zoo_rows(cfg)
    yield from _parameter_rows(model)
    yield from _norm_rows(model)
    try:
        flops = _multiply_adds(model, size)
        kept = _kept(model, (batch, *size))
    # Detectors of all kinds call their parts in ways of their own.
    except Exception as error:
        reason = ' '.join(str(error).split())[:120]
        yield 'work, memory', f'not counted: its parts are called otherwise ({reason})'
        return
    regions = f', {_TEST_REGIONS[0]} regions and {_TEST_REGIONS[1]} masks'
    two_stages = getattr(model, 'roi_head', None) is not None
    yield (
        'multiply-adds',
        f'{_sum(flops, 1e9, " G")} of an image of {size[0]} x {size[1]}, padded'
        f'{regions if two_stages else ""}',
    )
    regions = f', {REGIONS[0]} regions and {REGIONS[1]} masks of each'
    yield (
        'kept for backward',
        f'{_sum(kept, _GIB, " GiB")} of {batch} image{"s" if batch > 1 else ""} in fp32'
        f'{regions if two_stages else ""}; weights, losses, optimiser and workspaces '
        'come on top',
    )


def _test_size(cfg: Config) -> tuple[int, int]:
    """To which the test pipeline resizes an image of 3 : 5."""
    pipeline = leaf_datasets(cfg.test_dataloader.dataset)[0].get('pipeline') or ()
    for step in pipeline:
        scale = step.get('scale')
        if type_name(step) == 'Resize' and isinstance(scale, tuple | list):
            return min(scale), max(scale)
    return _DEFAULT_SIZE


def _padded(size: tuple[int, int], cfg: Config) -> tuple[int, int]:
    divisor = (cfg.model.get('data_preprocessor') or {}).get('pad_size_divisor', 1)
    height, width = (-(-side // divisor) * divisor for side in size)
    return height, width


def _of_classes(classes: Sequence[str] | None) -> str:
    if not classes:
        return ''
    listed = ', '.join(classes[:_SHOWN_CLASSES])
    more = ', …' if len(classes) > _SHOWN_CLASSES else ''
    return f', {len(classes)} classes: {listed}{more}'


def _start(cfg: Config) -> str:
    if cfg.get('load_from'):
        return str(cfg.load_from)
    init = (cfg.model.get('backbone') or {}).get('init_cfg') or {}
    if init.get('checkpoint'):
        return f'{init.checkpoint} (backbone), the rest random'
    return 'random weights'


def _zoo_rows(cfg: Config) -> Rows:
    """Scores and weights that are known of it."""
    try:
        known = find(str(cfg.filename))
    except UserError:
        return
    scores = {'box AP': known.box_ap, 'mask AP': known.mask_ap}
    listed = ', '.join(f'{k} {v}' for k, v in scores.items() if v is not None)
    if listed:
        yield 'scores', f'{listed} by {known.source}'
    if known.weights:
        digest = known.weights.sha256
        checked = f', sha256 {digest}' if digest else ''
        yield 'weights', f'{known.weights.url}{checked}'


def _parameter_rows(model: nn.Module) -> Rows:
    parts = {
        name: sum(p.numel() for p in part.parameters())
        for name, part in model.named_children()
    }
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    yield 'parameters', f'{_sum(parts, 1e6, " M")}; trained {trained / 1e6:.1f} M'


def _norm_rows(model: nn.Module) -> Rows:
    kinds = Counter(
        type(module).__name__
        for module in model.modules()
        if isinstance(
            module, nn.GroupNorm | nn.LayerNorm | nn.modules.batchnorm._NormBase
        )
    )
    listed = ', '.join(f'{count} {kind}' for kind, count in kinds.most_common())
    yield 'norms', listed or 'none'
    report = fuse(model)
    if len(report):
        first, *others = str(report).splitlines()
        yield 'gn_det.fuse', first
        for line in others:
            yield '', line.strip()


def _multiply_adds(model: nn.Module, size: tuple[int, int]) -> dict[str, float]:
    """Of convolutions and matrix products, by part; half of the operations."""
    reached: list[tuple[str, int]] = []
    counter = FlopCounterMode(display=False)
    model.eval()
    with _fake_mode(model), counter, torch.no_grad():
        images = torch.zeros(1, 3, *size)
        run_parts(
            model,
            images,
            _TEST_REGIONS,
            lambda part: reached.append((part, counter.get_total_flops())),
        )
        reached.append(('', counter.get_total_flops()))
    found: Counter[str] = Counter()
    for (part, begin), (_, end) in itertools.pairwise(reached):
        found[part] += (end - begin) // 2
    return dict(found)


def _kept(model: nn.Module, shape: tuple[int, int, int]) -> Mapping[str, int]:
    batch, height, width = shape
    model.train()
    with _fake_mode(model):
        images = torch.zeros(batch, 3, height, width)
        recomputing = isinstance(model, Recomputing)
        kept, _ = kept_by(model, images, amp=False, recomputing=recomputing)
    return kept.parts


def _fake_mode(model: nn.Module) -> FakeTensorMode:
    return next(model.parameters()).fake_mode


def _sum(parts: Mapping[str, float], unit: float, name: str) -> str:
    """`44.4 M (backbone 23.5, neck 3.4)`."""
    listed = ', '.join(f'{k} {v / unit:.1f}' for k, v in parts.items() if v)
    if unit == _GIB:
        listed = ', '.join(f'{k} {v / unit:.2f}' for k, v in parts.items() if v)
        return f'{sum(parts.values()) / unit:.2f}{name} ({listed})'
    return f'{sum(parts.values()) / unit:.1f}{name} ({listed})'


def check_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    """`--size`, checked.

    Raises:
        UserError: if a side is no number of pixels.
    """
    if size is None:
        return None
    if min(size) < 1:
        raise UserError(f'--size: expected pixels, got {size[0]} {size[1]}')
    return size[0], size[1]
