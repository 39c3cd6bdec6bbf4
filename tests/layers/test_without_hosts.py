"""The op, the layers and `fuse` where nothing but torch and Triton is installed."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
for name in ('mmengine', 'mmcv', 'mmdet', 'torchvision', 'cv2', 'pycocotools', 'rich'):
    sys.modules[name] = None
import torch
from torch import nn
from gn_det.layers import FusedGroupNorm, GroupNorm
from gn_det.ops import group_norm
import gn_det

torch.manual_seed(0)
net = nn.Sequential(
    *(nn.Conv2d(3, 8, 3), FusedGroupNorm(8, 2), nn.ReLU()),
    *(nn.Conv2d(8, 8, 3), GroupNorm(2, 8), nn.ReLU()),
    *(nn.Conv2d(8, 8, 3), nn.GroupNorm(4, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
)
images, target = torch.randn(4, 3, 9, 9), torch.randn(4, 8)
before = net(images)
print(gn_det.fuse(net))
torch.testing.assert_close(net(images), before)
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
losses = []
for _ in range(2):
    loss = (net(images) - target).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
assert losses[1] < losses[0], losses
assert group_norm(images, 3).shape == images.shape
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
net, report = gn_det.convert_norm(net)
print(report.summary())
assert net(images).shape == (4, 8, 7, 7)
"""


def test_a_training_step():
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert '2 with ReLU' in done.stdout
    assert '1 Batch Norms became Group Norm' in done.stdout
