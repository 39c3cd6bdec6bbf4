"""The networks that are compared differ in their norms and in nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from gn_det import FusedGroupNorm
from studies.claims import CLAIMS
from studies.classifier import seeded_network
from studies.detector import detector_config
from studies.norms import FrozenBatchNorm, norm_cfg
from studies.plan import ClassifierSize, DetectorSize

DETECTORS = CLAIMS['d'].cases + CLAIMS['c'].cases
KINDS = {'gn-g8': FusedGroupNorm, 'bn': nn.BatchNorm2d, 'frozen-bn': FrozenBatchNorm}


@pytest.mark.parametrize('norm', ['gn-g16', 'gn-g1', 'gn-c16', 'gn-c1', 'frozen-bn'])
def test_the_seed_alone_chooses_the_weights(norm: str):
    widths = ClassifierSize().widths
    ours = seeded_network(norm, widths, seed=3).state_dict()
    others = seeded_network('bn', widths, seed=3).state_dict()
    weights = [key for key, value in ours.items() if value.dim() > 1]
    assert len(weights) == 10
    for key in weights:
        assert torch.equal(ours[key], others[key]), key
    again = seeded_network(norm, widths, seed=4).state_dict()
    assert not torch.equal(ours[weights[0]], again[weights[0]])


def test_ends_of_the_groups_are_layer_norm_and_instance_norm():
    network = seeded_network('gn-g1', (16, 32), seed=0)
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.num_groups for norm in norms} == {1}
    network = seeded_network('gn-c1', (16, 32), seed=0)
    norms = [m for m in network.modules() if isinstance(m, nn.GroupNorm)]
    assert all(norm.num_groups == norm.num_channels for norm in norms)


def test_a_block_starts_as_its_shortcut():
    network = seeded_network('gn-g8', (16, 32), seed=0)
    last = [m.norm2 for m in network.modules() if hasattr(m, 'norm2')]
    assert len(last) == 2
    assert all(not norm.weight.any() for norm in last)


def test_frozen_batch_norm_never_moves_its_statistics():
    norm = FrozenBatchNorm(4).train()
    x = torch.randn(8, 4, 3, 3) * 5 + 2
    torch.testing.assert_close(norm(x), x, rtol=1e-4, atol=1e-4)
    assert not norm.running_mean.any()
    assert norm.weight.requires_grad


def test_unknown_norms_are_refused():
    with pytest.raises(ValueError, match="unknown norm 'gn-8'"):
        norm_cfg('gn-8')


@pytest.mark.parametrize('case', dict.fromkeys(DETECTORS), ids=lambda case: case.name)
def test_each_part_of_the_detector_has_its_norm(case, tmp_path: Path):
    cfg = detector_config(case, 0, DetectorSize(), tmp_path, tmp_path)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model).train()
    assert _kinds(model.backbone) == {KINDS[case.norm]: 20}
    assert _kinds(model.neck) == {KINDS[case.heads]: 8}
    assert _kinds(model.roi_head) == {KINDS[case.heads]: 8}
    # mmdet keeps a backbone's BN in evaluation mode unless it is told not to.
    training = {m.training for m in model.modules() if type(m) is nn.BatchNorm2d}
    assert training == ({True} if 'bn' in (case.norm, case.heads) else set())
    assert cfg.train_dataloader.batch_size == 2


def _kinds(part: nn.Module) -> Counter:
    norms = (nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    return Counter(type(m) for m in part.modules() if isinstance(m, norms))
