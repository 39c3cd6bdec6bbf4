"""`gn-det publish` on a checkpoint that mmengine's Runner saved."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from tests.running import assert_success, call, user_error


class Small(BaseModel):
    """One convolution and a norm, trained to give zero."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4))

    def forward(self, inputs, mode='tensor'):
        """The mean square of the output as the loss."""
        return {'loss': self.layers(inputs.float()).square().mean()}


def trained_checkpoint(folder: Path) -> Path:
    data = [dict(inputs=torch.randn(3, 4, 4)) for _ in range(4)]
    cfg = dict(
        model=Small(),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=data,
            collate_fn=dict(type='default_collate'),
        ),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1, momentum=0.9)),
        param_scheduler=dict(type='LinearLR', start_factor=0.1, end=2),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        custom_hooks=[dict(type='EMAHook')],
        default_scope='mmengine',
        experiment_name=f'publish-{folder.name}',
        cfg=Config(dict(model=dict(type='Small'))),
    )
    Runner(**cfg).train()
    return folder / 'epoch_1.pth'


def test_checkpoint_of_a_run(tmp_path):
    source = trained_checkpoint(tmp_path / 'run')
    done = call('publish', source, tmp_path / 'gn')
    assert_success(done)
    left_out, path = done.stdout.splitlines()
    assert left_out.startswith('left out: ')
    for name in ('optimizer', 'message_hub', 'param_schedulers', 'ema_state_dict'):
        assert name in left_out
    content = torch.load(path, weights_only=True)
    assert content.keys() == {'meta', 'state_dict'}
    assert content['state_dict'].keys() == Small().state_dict().keys()
    assert 'cfg' in content['meta']
    assert Path(path).stat().st_size < source.stat().st_size


def test_mistakes_are_answered_with_one_line(tmp_path):
    done = call('publish', tmp_path / 'no.pth', tmp_path / 'gn')
    assert f'checkpoint not found: {tmp_path}/no.pth' in user_error(done)
