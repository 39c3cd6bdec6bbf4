"""Which of mmdet's configs work without compiled operators of mmcv.

    python benchmarks/operator_coverage.py [--csv FILE] [FOLDER …]

Every config outside `_base_` is built, with its parameters left uninitialised. The
operators that a model reaches are read off the code of what it was built of: the
functions and classes of mmdet and mmcv that each part's code names, down to the calls
of `ext_module`. A layer counts only where the model has it. Language models, which need
a package and a download, are left out; no operator of mmcv is in them.
docs/operators.md has the result.
"""

from __future__ import annotations

import argparse
import ast
import collections
import contextlib
import csv
import functools
import os
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

# First: mmdet's modules hold None for what they could not import from mmcv.ops.
import gn_det  # noqa: F401, I001
import mmdet
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger

from gn_det.compat.operators import OPERATORS

__all__ = [
    'CONFIGS',
    'LARGER_MAPS',
    'build',
    'leaf_configs',
    'operator_names',
    'operators_behind',
    'operators_of',
    'surroundings',
    'types_in',
    'verdict',
    'why_not',
    'without_extras',
]

CONFIGS = Path(mmdet.__file__).parent / '.mim' / 'configs'
HOSTS = ('mmdet', 'mmcv')

LARGER_MAPS = 'modulated_deform_conv (larger offset maps)'
SUPPLIED = {*OPERATORS, LARGER_MAPS}
# What torchvision has, and NMS in torch.
BASIC = {
    name
    for name in OPERATORS
    if name.startswith(('nms', 'softnms', 'roi_align', 'deform_conv', 'modulated'))
}
# mmdet's focal loss and mmcv's attention are written in torch for the CPU.
CUDA_ONLY = ('sigmoid_focal_loss', 'ms_deform_attn')
TRAINING_ONLY = ('sigmoid_focal_loss', 'softmax_focal_loss', 'nms_match')
PREDICTION_ONLY = ('softnms', 'line_nms', 'masked_')


def leaf_configs(folders: Iterable[str] = ()) -> list[str]:
    """The configs outside `_base_`, by their paths below mmdet's folder."""
    paths = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob('*.py'))
    folders = set(folders)
    return [
        str(path)
        for path in paths
        if path.parts[0] != '_base_' and (not folders or path.parts[0] in folders)
    ]


def build(config: Config) -> nn.Module:
    """The config's model, without weights and without its language model."""
    # Not before `surroundings`.
    from mmdet.models.dense_heads import atss_vlfusion_head

    register_all_modules()
    MODELS.register_module('NoLanguageModel', module=NoLanguageModel, force=True)
    without_extras(config.model)
    # GLIP's head has layers of the language model in it.
    without = dict(BertConfig=NoLanguageModel, BertEncoderLayer=NoLanguageModel)
    with (
        _uninitialised(),
        warnings.catch_warnings(),
        mock.patch.multiple(atss_vlfusion_head, **without),
    ):
        warnings.simplefilter('ignore')
        return MODELS.build(config.model)


def without_extras(config: object) -> None:
    """Drop what needs a download or a package that touches no operator; in place."""
    if isinstance(config, dict):
        if config.get('type') == 'BertModel':
            config['type'] = 'NoLanguageModel'
        if 'teacher_ckpt' in config:
            config['teacher_ckpt'] = None
        # Layers whose activations fairscale would compute twice.
        if 'num_cp' in config:
            config['num_cp'] = -1
        for value in config.values():
            without_extras(value)
    elif isinstance(config, (list, tuple)):
        for item in config:
            without_extras(item)


class NoLanguageModel(nn.Module):
    """Has the width that a detector asks its language model for."""

    hidden_size = 768

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__()
        self.language_backbone = nn.Module()
        self.language_backbone.body = nn.Module()
        self.language_backbone.body.language_dim = self.hidden_size

    @classmethod
    def from_pretrained(cls, name: str) -> type:
        """What stands for the settings of a language model by name."""
        return cls


def operators_of(model: nn.Module, config: Config) -> set[str]:
    """The operators of `mmcv._ext` that the model's code reaches, training included."""
    reached = set()
    for kind in {type(part) for part in _parts(model)}:
        reached |= operators_behind(kind)
        # The two layers that convolve one level with the offsets of another.
        if kind.__name__ in ('DyDCNv2', 'DyConv'):
            reached.add(LARGER_MAPS)
    # `batched_nms` calls what the config names.
    for kind, operator in (('nms', 'nms'), ('soft_nms', 'softnms')):
        if kind in types_in(config.model):
            reached.add(operator)
    return reached


def verdict(operators: set[str], supplied: set[str], cuda: bool) -> tuple[bool, bool]:
    """Whether prediction works, and a step of training, with nothing but `supplied`."""
    missing = {
        name for name in operators - supplied if cuda or not name.startswith(CUDA_ONLY)
    }
    predicts = all(
        name.startswith(TRAINING_ONLY) or name.endswith('_backward') for name in missing
    )
    trains = all(name.startswith(PREDICTION_ONLY) for name in missing)
    return predicts, trains


def types_in(config: object) -> set[str]:
    """Every `type` that a config names, at any depth."""
    if isinstance(config, dict):
        own = {config['type']} if isinstance(config.get('type'), str) else set()
        return own.union(*map(types_in, config.values()))
    if isinstance(config, (list, tuple)):
        return set().union(*map(types_in, config))
    return set()


@functools.cache
def operator_names() -> frozenset[str]:
    """Every name that a file of `mmcv.ops` loads from the extension."""
    from mmcv import ops

    names = set()
    for path in Path(ops.__file__).parent.glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and 'load_ext' in ast.unparse(node.func):
                names |= set(ast.literal_eval(node.args[1]))
    return frozenset(names)


@functools.cache
def operators_behind(thing: object) -> frozenset[str]:
    """The operators that a class or function of mmdet or mmcv reaches by its code.

    Layers that it names are left out: they count as parts of a model.
    """
    if isinstance(thing, type):
        members = [
            value
            for base in thing.__mro__
            if _is_of_hosts(base)
            for value in vars(base).values()
        ]
        return frozenset().union(*map(_named, members))
    return _named(thing)


def _named(value: object) -> frozenset[str]:
    """The operators behind what a name stands for in some code."""
    if isinstance(value, (staticmethod, classmethod)):
        value = value.__func__
    if isinstance(value, property):
        value = value.fget
    while hasattr(value, '__wrapped__'):
        value = value.__wrapped__
    if isinstance(value, FunctionType) and _is_of_hosts(value):
        return _of_function(value)
    # `SomeFunction.apply` under a name of its own is a bound method.
    kind = getattr(value, '__self__', value)
    if isinstance(kind, type) and issubclass(kind, torch.autograd.Function):
        return operators_behind(kind)
    return frozenset()


_ENTERED: set[FunctionType] = set()


@functools.cache
def _of_function(function: FunctionType) -> frozenset[str]:
    if function in _ENTERED:  # It calls itself.
        return frozenset()
    _ENTERED.add(function)
    reached = set()
    for code in _codes(function.__code__):
        if 'ext_module' in code.co_names:
            reached |= operator_names().intersection(code.co_names)
        for name in code.co_names:
            reached |= _named(function.__globals__.get(name))
    return frozenset(reached)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _parts(root: object) -> Iterator[object]:
    """The objects of mmdet and mmcv that hang on `root`, itself included."""
    seen, left = set(), [root]
    while left:
        item = left.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, (list, tuple)):
            left.extend(item)
        elif isinstance(item, dict):
            left.extend(item.values())
        elif isinstance(item, nn.Module) or _is_of_hosts(type(item)):
            yield item
            left.extend(getattr(item, '__dict__', {}).values())


def _is_of_hosts(thing: object) -> bool:
    return str(getattr(thing, '__module__', '')).partition('.')[0] in HOSTS


@contextlib.contextmanager
def _uninitialised() -> Iterator[None]:
    """Leave the parameters of what is built as the allocator hands them out."""

    def leave(tensor: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        return tensor

    names = [name for name in vars(nn.init) if name.endswith('_') and name[0] != '_']
    with contextlib.ExitStack() as stack:
        for name in names:
            stack.enter_context(mock.patch.object(nn.init, name, leave))
        for name in ('uniform_', 'normal_'):
            stack.enter_context(mock.patch.object(torch.Tensor, name, leave))
        yield


@contextlib.contextmanager
def surroundings() -> Iterator[None]:
    """What some configs want to be built in: a process group, their folder, lap."""
    # Trackers ask for it when they are built, and keep it from when they are imported.
    sys.modules.setdefault('lap', ModuleType('lap'))
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        store = dist.FileStore(f'{folder}/store', 1)
        dist.init_process_group('gloo', store=store, rank=0, world_size=1)
        os.chdir(CONFIGS.parent)
        try:
            yield
        finally:
            os.chdir(before)
            dist.destroy_process_group()


def decide(name: str) -> tuple[str, set[str]]:
    """'built' or why not, in a few words, and the operators reached."""
    try:
        config = Config.fromfile(CONFIGS / name)
        if 'model' not in config:
            return 'describes no model', set()
        model = build(config)
    # Whatever a host raises: it is the result.
    except Exception as error:
        return why_not(error), set()
    return 'built', operators_of(model, config)


def why_not(error: Exception) -> str:
    """Why a config could not be built, in a few words."""
    message = str(error)
    for package in ('mmpretrain', 'timm', 'detectron2', 'transformers', 'fairscale'):
        if package in message.lower():
            return f'needs {package}'
    return f'{type(error).__name__}: {message.strip().splitlines()[-1][:100]}'


def table(results: dict[str, tuple[str, set[str]]]) -> str:
    """Counts as Markdown: what is built, and what works with which operators."""
    reasons = collections.Counter(reason for reason, _ in results.values())
    built = [operators for reason, operators in results.values() if reason == 'built']
    lines = [f'{number:4} {reason}' for reason, number in reasons.most_common()]
    lines += ['', '| operators | device | predict | train a step | both |']
    lines += ['|---|---|---|---|---|']
    for title, supplied in (('basic', BASIC), ('all', SUPPLIED)):
        for device in ('CPU', 'CUDA'):
            work = [verdict(names, supplied, device == 'CUDA') for names in built]
            counts = (
                sum(predicts for predicts, _ in work),
                sum(trains for _, trains in work),
                sum(map(all, work)),
            )
            lines.append('| ' + ' | '.join(map(str, (title, device, *counts))) + ' |')
    return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('folders', nargs='*', metavar='FOLDER')
    parser.add_argument('--csv', type=Path, metavar='FILE')
    options = parser.parse_args(arguments)
    MMLogger.get_current_instance().setLevel('ERROR')
    with surroundings():
        results = {name: decide(name) for name in leaf_configs(options.folders)}
    if options.csv:
        with options.csv.open('w', newline='') as file:
            writer = csv.writer(file)
            writer.writerow(['config', 'result', 'operators'])
            for name, (reason, operators) in results.items():
                writer.writerow([name, reason, ' '.join(sorted(operators))])
    print(table(results))


if __name__ == '__main__':
    main()
