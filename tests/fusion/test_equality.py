"""The fused model is the stock model: losses, gradients, predictions, training.

Both round, at different places. So each is held against the stock model in float64, and
the fused one may err twice as much as the stock one, plus a floor of about 8 ulp
(float32) or one (bfloat16), per loss, gradient and output; and over all gradients
together a tenth more. In bfloat16 the stock model's error in one gradient is a draw
that other processors throw otherwise, up to fivefold in maps of a few pixels: there its
worst in the same part of the model counts. Images are small; channels, depth and heads
are the real ones.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections import defaultdict
from dataclasses import dataclass

import pytest
import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor, nn

import gn_det
from tests.fusion.detectors import (
    R18,
    R50,
    R101,
    batch,
    given_proposals,
    gradients,
    losses,
    model_config,
    pair,
    predictions,
    randomise,
    stock,
)

FLOOR = {'fp32': 1e-6, 'bf16': 8e-3}
TIMES_STOCK = 2.0
TIMES_STOCK_TOGETHER = 1.1
PRECISIONS = ['fp32', 'bf16']
LAYOUTS = {'nchw': torch.contiguous_format, 'nhwc': torch.channels_last}
SIZE = (64, 96)


@dataclass
class Pair:
    """Both models, what they are fed, and what the stock one gives in float64."""

    stock: nn.Module
    fused: nn.Module
    data: dict
    losses: dict[str, Tensor]
    gradients: dict[str, Tensor]
    outputs: list[Tensor]


@pytest.fixture(scope='module', params=[R50, R101], ids=['r50', 'r101'])
def models(request):
    theirs, ours = pair(request.param)
    data = batch(*SIZE)
    exact = copy.deepcopy(theirs).double()
    found, slopes = train_step(exact, data, 'fp64')
    return Pair(theirs, ours, data, found, slopes, outputs(exact, data, 'fp64'))


def precision_of(name: str) -> contextlib.AbstractContextManager:
    if name == 'bf16':
        return torch.autocast('cpu', torch.bfloat16)
    return contextlib.nullcontext()


def use_layout(model: nn.Module, layout: str) -> None:
    model.to(memory_format=LAYOUTS[layout])
    # The stock model gets channels-last maps from its weights, ours by its own switch.
    model.channels_last = layout == 'nhwc'


def train_step(
    model: nn.Module, data: dict, precision: str
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model.train()
    with given_proposals(model, data), precision_of(precision):
        found = losses(model, data)
    return found, gradients(model, found['loss'])


def outputs(model: nn.Module, data: dict, precision: str) -> list[Tensor]:
    """Scores, boxes and masks of RPN and heads before anything is chosen."""
    model.eval()
    with torch.no_grad(), given_proposals(model, data), precision_of(precision):
        inputs = model.data_preprocessor(data)
        of_rpn = model.rpn_head(model.extract_feat(inputs['inputs']))
        of_heads = model(**inputs, mode='tensor')
    return list(_tensors([of_rpn, of_heads]))


def _tensors(value: object):
    if isinstance(value, Tensor):
        yield value.detach()
    elif isinstance(value, list | tuple):
        yield from itertools.chain.from_iterable(map(_tensors, value))


def error(value: Tensor, exact: Tensor) -> float:
    difference = torch.linalg.vector_norm(value.double() - exact.double())
    return (difference / torch.linalg.vector_norm(exact.double())).item()


def assert_as_exact(
    ours: dict[str, Tensor],
    theirs: dict[str, Tensor],
    exact: dict[str, Tensor],
    precision: str,
) -> None:
    assert ours.keys() == theirs.keys() == exact.keys()
    stock_errs = defaultdict(float)
    for name, value in exact.items():
        part = part_of(name, precision)
        stock_errs[part] = max(stock_errs[part], error(theirs[name], value))
    for name, value in exact.items():
        assert ours[name].dtype == theirs[name].dtype
        assert ours[name].shape == value.shape
        reach = TIMES_STOCK * stock_errs[part_of(name, precision)] + FLOOR[precision]
        assert error(ours[name], value) <= reach, name


def part_of(name: str, precision: str) -> str:
    """`neck.fpn_convs` of `neck.fpn_convs.3.gn.bias`, in float32 the whole name."""
    return '.'.join(name.split('.')[:2]) if precision == 'bf16' else name


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('precision', PRECISIONS)
def test_losses_and_gradients(models, precision, layout):
    results = []
    for model in (models.fused, models.stock):
        use_layout(model, layout)
        results.append(train_step(model, models.data, precision))
    (our_losses, ours), (their_losses, theirs) = results
    assert ours.keys() == dict(models.stock.named_parameters()).keys()
    assert_as_exact(ours, theirs, models.gradients, precision)
    together = [
        torch.cat([found[name].double().flatten() for name in models.gradients])
        for found in (ours, theirs, models.gradients)
    ]
    reach = TIMES_STOCK_TOGETHER * error(together[1], together[2]) + FLOOR[precision]
    assert error(together[0], together[2]) <= reach
    # A loss is one number, and what the stock model errs in it may be nothing by luck:
    # the floor is that of one number with the whole network's rounding in it.
    floor = {'fp32': 1e-5, 'bf16': 3e-2}[precision]
    assert our_losses.keys() == their_losses.keys() == models.losses.keys()
    for name, exact in models.losses.items():
        assert error(our_losses[name], exact) <= floor, name


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('precision', PRECISIONS)
def test_outputs_of_the_heads(models, precision, layout):
    found = []
    for model in (models.fused, models.stock):
        use_layout(model, layout)
        found.append(outputs(model, models.data, precision))
    ours, theirs, exact = (
        {str(i): tensor for i, tensor in enumerate(tensors)}
        for tensors in (*found, models.outputs)
    )
    # Scores and boxes of five levels, and the two heads' scores, boxes and masks.
    assert len(exact) == 13
    assert_as_exact(ours, theirs, exact, precision)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_predictions_in_float32(models, layout):
    """With proposals, suppression and masks of their own, detection by detection."""
    results = []
    for model in (models.fused, models.stock):
        use_layout(model, layout)
        model.eval()
        results.append(predictions(model, models.data))
    for ours, theirs in zip(*results, strict=True):
        assert len(theirs) == 10
        assert torch.equal(ours.labels, theirs.labels)
        torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.bboxes, theirs.bboxes, rtol=0, atol=1e-3)
        assert theirs.masks.any()
        assert (ours.masks != theirs.masks).float().mean() <= 1e-3


@pytest.mark.parametrize('layout', LAYOUTS)
def test_predictions_in_bfloat16(models, layout):
    """Each clear detection of one model is there in the other, from equal proposals.

    Clear are those whose score is far enough from what the limits leave out.
    """
    results = []
    for model in (models.fused, models.stock):
        use_layout(model, layout)
        model.eval()
        with given_proposals(model, models.data), precision_of('bf16'):
            results.append(predictions(model, models.data))
    for one, other in (results, results[::-1]):
        for here, there in zip(one, other, strict=True):
            assert len(here) > 2
            assert_found(here, there)


def assert_found(wanted: InstanceData, found: InstanceData) -> None:
    clear = wanted[wanted.scores > wanted.scores.min() + 0.05]
    assert len(clear)
    for i in range(len(clear)):
        same = found[found.labels == clear.labels[i]]
        overlaps = bbox_overlaps(clear.bboxes[i : i + 1], same.bboxes)[0]
        best = overlaps.argmax()
        assert overlaps[best] > 0.9
        assert (same.scores[best] - clear.scores[i]).abs() < 0.05
        assert (same.masks[best] != clear.masks[i]).float().mean() < 0.05


def test_a_stock_model_fused_afterwards():
    """`fuse` gives what the configs' own type gives, and `unfuse` what was before."""
    config = model_config(R18)
    model = stock(config)
    randomise(model)
    data = batch(*SIZE)
    before = results_of(model, data)
    gn_det.fuse(model)
    fused = results_of(model, data)
    gn_det.unfuse(model)
    after = results_of(model, data)
    for name, value in before.items():
        assert error(fused[name], value) <= 1e-5, name
        assert torch.equal(after[name], value), name


def results_of(model: nn.Module, data: dict) -> dict[str, Tensor]:
    model.train()
    found = losses(model, data)
    slopes = gradients(model, found['loss'])
    return {**found, **{name: slope.clone() for name, slope in slopes.items()}}


@pytest.mark.parametrize('leaf', [R18, R50, R101], ids=['r18', 'r50', 'r101'])
def test_ten_optimiser_steps_stay_together(leaf):
    """Losses and weights, with momentum and decay, from proposals of their own.

    In float32, where on one machine the two round alike: 1e-4 is what a map that
    differs in its last bit grows to in ten steps.
    """
    runs = []
    for model in pair(leaf):
        model.train()
        optimiser = torch.optim.SGD(model.parameters(), 0.002, 0.9, weight_decay=1e-4)
        history = []
        for step in range(10):
            found = losses(model, batch(*SIZE, seed=step), seed=step)
            optimiser.zero_grad()
            found['loss'].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10)
            optimiser.step()
            history.append(found['loss'].detach())
        runs.append((history, model.state_dict()))
    (theirs, their_weights), (ours, our_weights) = runs
    assert theirs[-1] != theirs[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=0)
    for name, weight in their_weights.items():
        assert error(our_weights[name], weight) <= 1e-4, name
