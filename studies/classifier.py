"""A small residual network on the glyphs, trained as arXiv 1803.08494, section 4.1."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from mmcv.cnn import build_norm_layer
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn import functional as F

from studies.glyphs import CLASSES, glyph_set
from studies.norms import norm_cfg
from studies.plan import ClassifierSize

# As in the paper, the error of a run is the median of its last epochs.
_LAST_EPOCHS = 3


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, each with its norm, as in ResNet-18."""

    def __init__(self, norm: dict, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = build_norm_layer(norm, outputs)[1]
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = build_norm_layer(norm, outputs)[1]
        # As in the paper: a block starts as its shortcut.
        nn.init.zeros_(self.norm2.weight)
        self.shortcut = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                build_norm_layer(norm, outputs)[1],
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class SmallResNet(BaseModel):
    """A stem, one residual block per stage, the mean over the map, a linear layer."""

    def __init__(self, norm: dict, widths: Sequence[int]) -> None:
        super().__init__()
        layers = [
            nn.Conv2d(3, widths[0], 3, 2, 1, bias=False),
            build_norm_layer(norm, widths[0])[1],
            nn.ReLU(),
        ]
        for stage, width in enumerate(widths):
            inputs = widths[max(stage - 1, 0)]
            layers.append(ResidualBlock(norm, inputs, width, 1 if stage == 0 else 2))
        self.features = nn.Sequential(*layers)
        self.scores = nn.Linear(widths[-1], len(CLASSES))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out')

    def forward(
        self, images: Tensor, labels: Tensor, mode: str = 'tensor'
    ) -> dict[str, Tensor] | list[bool] | Tensor:
        """The loss, whether each image is classified wrongly, or the scores."""
        scores = self.scores(self.features(images).mean(dim=(2, 3)))
        if mode == 'loss':
            return dict(loss=F.cross_entropy(scores, labels))
        if mode == 'predict':
            return (scores.argmax(dim=1) != labels).tolist()
        return scores


class ErrorRate(BaseMetric):
    """Wrongly classified images in per cent."""

    def process(self, data_batch: object, data_samples: Sequence[bool]) -> None:
        """Take the verdicts on one batch."""
        self.results.extend(data_samples)

    def compute_metrics(self, results: list) -> dict[str, float]:
        """`error`, 0–100."""
        return dict(error=100 * sum(results) / len(results))


def train_classifier(
    norm: str, batch: int, seed: int, size: ClassifierSize, work_dir: Path
) -> dict[str, float]:
    """Train once; returns `error`, the median of the last epochs, in per cent."""

    def loader(split: str, count: int, batch_size: int) -> dict:
        return dict(
            dataset=glyph_set(split, count),
            batch_size=batch_size,
            num_workers=0,
            sampler=dict(type='DefaultSampler', shuffle=split == 'train'),
            drop_last=split == 'train',
            collate_fn=dict(type='default_collate'),
        )

    runner = Runner(
        model=seeded_network(norm, size.widths, seed),
        work_dir=str(work_dir),
        train_dataloader=loader('train', size.num_train, batch),
        val_dataloader=loader('val', size.num_val, 250),
        val_evaluator=[ErrorRate()],
        val_cfg={},
        train_cfg=dict(
            by_epoch=True,
            max_epochs=size.epochs,
            val_begin=size.epochs - _LAST_EPOCHS + 1,
        ),
        optim_wrapper=dict(
            optimizer=dict(
                type='SGD', lr=size.lr * batch / 32, momentum=0.9, weight_decay=1e-4
            )
        ),
        param_scheduler=dict(type='MultiStepLR', milestones=list(size.drops)),
        default_hooks=dict(
            checkpoint=None, logger=dict(type='LoggerHook', interval=50)
        ),
        randomness=dict(seed=seed),
        experiment_name=work_dir.name,
    )
    runner.train()
    errors, _ = runner.message_hub.get_scalar('val/error').data
    return dict(error=statistics.median(errors[-_LAST_EPOCHS:]))


def seeded_network(norm: str, widths: Sequence[int], seed: int) -> SmallResNet:
    """The same random weights for every norm; the Runner seeds after it is built."""
    torch.manual_seed(seed)
    return SmallResNet(norm_cfg(norm), widths)
