"""What fuses in the models of every host and in mmdet's own configs, and what is equal.

    python benchmarks/fusion_coverage.py {hosts,configs,runs} … [--of NAME …]

hosts: the small models that tests/fusion/hosts.py has of every library, stock against
fused (`make test` installs the libraries; 1 min). configs: every config of mmdet is
built, without weights, and its norms are counted (4 min). runs: of every folder one
config for each thing that fuses there, shrunk, with the same weights three times:
stock, with `import gn_det.override`, with `gn_det.fuse`; a step of training and a
prediction (15 min). Times are of two cores.

`--of` measures only the models or configs whose names begin so; the other rows stay.
The results are CSV files in benchmarks/results, of which coverage_page.py makes
docs/coverage.md.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import random
import re
import runpy
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# First: mmdet's modules hold None for what they could not import from mmcv.ops.
import gn_det  # noqa: I001
from mmdet.registry import MODELS
from mmdet.structures import TrackDataSample
from mmdet.testing import demo_track_inputs
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MessageHub, MMLogger
from mmengine.structures import BaseDataElement

from benchmarks import operator_coverage, operator_runs
from benchmarks.coverage_page import groups
from benchmarks.results import (
    FUSION_COLUMNS,
    ROOT,
    Environment,
    fusion_path,
    read_rows,
    write_rows,
)
from gn_det.fusion import FusionReport
from gn_det.fusion.core import KINDS

# Where `make test` puts the libraries that no other test needs.
HOSTS_FOLDER = ROOT / '.hosts'

# By what each host is called where it is installed.
PACKAGES = {
    'mmcv': ('onedl-mmcv', 'mmcv-lite', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
}


def counts(report: FusionReport) -> dict[str, str]:
    """The columns `FUSION_COUNTS` of a model, as a file has them."""
    reasons = collections.Counter(report.plain.values())
    reasons.update(report.untouched.values())
    found = {kind: len(getattr(report, kind)) for kind in KINDS}
    found |= {'norms': len(report), 'plain': len(report.plain)}
    found |= {'untouched': len(report.untouched)}
    found |= {'outside': sum(report.outside.values())}
    why = ' | '.join(f'{n} {reason}' for reason, n in sorted(reasons.items()))
    return {name: str(n) for name, n in found.items()} | {'why': why}


def operators(model: nn.Module, config: Config) -> str:
    """The compiled operators of mmcv that a model's code reaches, gradients aside."""
    reached = operator_coverage.operators_of(model, config)
    names = {re.sub('_(forward|backward).*| .*', '', name) for name in reached}
    return ' '.join(sorted(names))


def where(host: str) -> dict[str, str]:
    """With which releases a row was measured, and when."""
    here = Environment.here()
    return {'host': _release(host), 'torch': here.torch, 'date': here.date}


def _release(host: str) -> str:
    for package in PACKAGES.get(host, (host,)):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f'{package} {metadata.version(package)}'
    raise SystemExit(f'error: {host} is not installed: `make test` installs it')


def results(model: nn.Module, x: object) -> dict[str, Tensor]:
    """The outputs, and the gradients of all parameters for a random upstream one."""
    torch.manual_seed(0)
    model.zero_grad()
    # Stock blocks may write into the list they are given.
    outs = tree_leaves(model(list(x) if isinstance(x, list) else x))
    outs = [out for out in outs if isinstance(out, Tensor) and out.requires_grad]
    generator = torch.Generator().manual_seed(2)
    upstream = [torch.randn(out.shape, generator=generator) for out in outs]
    torch.autograd.backward(outs, upstream)
    return {str(i): out.detach() for i, out in enumerate(outs)} | gradients(model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradient of every parameter that has one, by name."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def difference(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """The largest one of any two elements; infinite where a tensor has no partner."""
    if found.keys() != expected.keys():
        return float('inf')
    largest = 0.0
    for name, value in expected.items():
        if found[name].shape != value.shape:
            return float('inf')
        if not torch.equal(found[name], value):
            gap = (found[name].double() - value.double()).abs().max().item()
            # A NaN is no small difference.
            largest = max(largest, gap if gap == gap else float('inf'))
    return largest


def host_row(name: str, model: nn.Module, report: FusionReport) -> dict[str, str]:
    """What is counted of a small model of a host."""
    part = getattr(model, 'module', model)
    return {
        'model': name,
        'class': type(part).__name__.removeprefix('Fused'),
        **counts(report),
        'operators': operators(part, Config(dict(model={}))),
    }


def measure_hosts(begin: tuple[str, ...]) -> Iterator[dict]:
    """A row for each model of the tests whose name begins so."""
    from tests.fusion.detectors import randomise
    from tests.fusion.hosts import MODELS as SMALL_MODELS
    from tests.fusion.hosts import need

    for name, build in SMALL_MODELS.items():
        if not name.startswith(begin):
            continue
        host = name.partition('-')[0]
        need(host)
        model, x = build()
        randomise(model)
        ours = copy.deepcopy(model)
        report = gn_det.fuse(ours)
        gaps = []
        for training in (True, False):
            model.train(training)
            ours.train(training)
            gaps.append(difference(results(ours, x), results(model, x)))
        row = host_row(name, model, report)
        yield row | {'difference': max(gaps), **where(host)}


def config_row(name: str) -> dict[str, str] | None:
    """What is counted of a config's model; None where it has no Group Norm.

    Args:
        name: the config's path below mmdet's folder.
    """
    config = Config.fromfile(operator_coverage.CONFIGS / name)
    if 'model' not in config:
        return None
    model = operator_coverage.build(config)
    report = gn_det.fuse(model)
    if not len(report) and not report.outside:
        return None
    return {
        'config': name,
        'model': config.model.type,
        **counts(report),
        'operators': operators(model, config),
    }


def measure_configs(begin: tuple[str, ...]) -> Iterator[dict]:
    """A row for each config with Group Norm, and for each that cannot be built."""
    with operator_coverage.surroundings():
        for name in operator_coverage.leaf_configs():
            if not name.startswith(begin):
                continue
            try:
                row = config_row(name)
            # Whatever a host raises: it is the result.
            except Exception as error:
                row = {'config': name, 'why': _why_not(error)}
            if row is not None:
                yield row | where('mmdet')


@contextlib.contextmanager
def overridden() -> Iterator[None]:
    """`import gn_det.override`, until the end."""
    from mmengine.registry import MODELS as ROOT_MODELS

    runpy.run_module('gn_det.override')
    try:
        yield
    finally:
        ROOT_MODELS.register_module(name='GN', module=nn.GroupNorm, force=True)


def run_row(name: str) -> dict[str, object]:
    """Stock against override and against fuse, of a shrunk model of a config."""
    config = Config.fromfile(operator_coverage.CONFIGS / name)
    register_all_modules()
    if config.model.get('language_model'):
        return {'config': name, 'why': 'needs a language model'}
    operator_coverage.without_extras(config.model)
    operator_runs.shrink(config.model)

    def build() -> nn.Module:
        torch.manual_seed(0)
        return MODELS.build(copy.deepcopy(config.model))

    with operator_runs.one_block_a_stage():
        stock = build()
        stock.init_weights()
        with overridden():
            replaced = build()
    _randomise_norms(stock)
    fused = copy.deepcopy(stock)
    gn_det.fuse(fused)
    replaced.load_state_dict(stock.state_dict())
    if hasattr(stock, 'teacher_model'):
        # Held, not owned, so that it is in no state dict.
        replaced.teacher_model.load_state_dict(stock.teacher_model.state_dict())
    classes = operator_runs.classes_of(config.model)
    expected = _step(stock, classes)
    found = {
        key: difference(_step(model, classes), expected)
        for key, model in (('override', replaced), ('fuse', fused))
    }
    return {'config': name, 'tensors': len(expected), **found}


def _randomise_norms(model: nn.Module) -> None:
    """As built, they scale by 1 and add 0, which hides errors."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            for parameter, mean in ((module.weight, 1.0), (module.bias, 0.0)):
                nn.init.normal_(parameter, mean, 0.2, generator)


def _step(model: nn.Module, classes: int) -> dict[str, Tensor]:
    """Losses and gradients of a step of SGD, then the predictions."""
    for seed in (torch.manual_seed, np.random.seed, random.seed):
        seed(0)
    # BoxInst and TOOD ask how far training has come.
    for count in ('iter', 'epoch'):
        MessageHub.get_current_instance().update_info(count, 1)
    model.train()
    losses = model(**_batch(model, classes, training=True), mode='loss')
    loss, parts = model.parse_losses(losses)
    loss.backward()
    found = {name: value.detach() for name, value in parts.items()} | gradients(model)
    if not loss.isfinite() or not any(grad.any() for grad in gradients(model).values()):
        raise ValueError('nothing to compare: the step has no finite loss or gradient')
    leaves = [p for p in model.parameters() if p.requires_grad]
    torch.optim.SGD(leaves, lr=1e-4).step()
    model.eval()
    with torch.no_grad():
        samples = model(**_batch(model, classes, training=False), mode='predict')
    for i, sample in enumerate(samples):
        found |= dict(_predicted(f'sample{i}', sample))
    return found


def _batch(model: nn.Module, classes: int, training: bool) -> dict:
    """Images with objects, or two frames of a video."""
    # Not before `surroundings`.
    from mmdet.models.detectors import RTMDet
    from mmdet.models.mot import BaseMOTModel

    if isinstance(model, RTMDet):
        # It would move the masks as if they were tensors.
        return operator_runs.batch(model, classes, training, with_mask=False)
    if not isinstance(model, BaseMOTModel):
        return operator_runs.batch(model, classes, training)
    settings = dict(num_items=[3], num_classes=classes, with_mask=True)
    if training:
        settings['key_frames_inds'] = [0]
    return model.data_preprocessor(demo_track_inputs(**settings), training)


def _predicted(name: str, sample: object) -> Iterator[tuple[str, Tensor]]:
    """The tensors of a prediction, those of the truth aside."""
    if isinstance(sample, TrackDataSample):
        for i, frame in enumerate(sample.video_data_samples):
            yield from _predicted(f'{name}.{i}', frame)
    elif isinstance(sample, BaseDataElement):
        for key, value in sample.items():
            if not key.startswith(('gt_', 'ignored_', 'proposals')):
                yield from _predicted(f'{name}.{key}', value)
    elif isinstance(sample, Tensor):
        yield name, sample
    elif isinstance(sample, np.ndarray):
        yield name, torch.from_numpy(sample)


def measure_runs(begin: tuple[str, ...]) -> Iterator[dict]:
    """A row for an example of each group of configs."""
    with operator_coverage.surroundings():
        for examples in groups(read_rows(fusion_path('configs'))):
            name = examples[0]['config']
            if not name.startswith(begin):
                continue
            try:
                row = run_row(name)
            # Whatever a host raises: it is the result.
            except Exception as error:
                row = {'config': name, 'why': _why_not(error)}
            yield row | where('mmdet')


def _why_not(error: Exception) -> str:
    """Without what only this machine has, as its paths."""
    reason = operator_coverage.why_not(error)
    return reason if reason.startswith('needs') else type(error).__name__


MEASUREMENTS = {
    'hosts': measure_hosts,
    'configs': measure_configs,
    'runs': measure_runs,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('what', nargs='+', choices=MEASUREMENTS)
    parser.add_argument('--of', nargs='+', default=[''], metavar='NAME')
    args = parser.parse_args(argv)
    # Some configs are of two libraries.
    sys.path.append(str(HOSTS_FOLDER))
    MMLogger.get_current_instance().setLevel('ERROR')
    warnings.simplefilter('ignore')
    begin = tuple(args.of)
    for what in args.what:
        path, columns = fusion_path(what), FUSION_COLUMNS[what]
        known = read_rows(path) if path.is_file() else []
        rows = [row for row in known if not row[columns[0]].startswith(begin)]
        for row in MEASUREMENTS[what](begin):
            print(*row.values(), flush=True)
            rows.append(row)
        write_rows(path, columns, sorted(rows, key=lambda row: row[columns[0]]))


if __name__ == '__main__':
    main()
