"""The paper's claims: which networks are compared, and what the paper found.

The paper is arXiv 1803.08494v3; its tables are named at each claim.
"""

from __future__ import annotations

from dataclasses import dataclass

BATCHES = (32, 16, 8, 4, 2)
GROUPS = (16, 8, 4, 2, 1)
# In the classifier, as in the paper, half the channels of the narrowest layer.
CLASSIFIER_GROUPS = 'gn-g8'
DETECTOR_GROUPS = 'gn-g8'
DETECTOR_BATCH = 2


@dataclass(frozen=True)
class Case:
    """A network and a batch size; with a seed it is one training run.

    Attributes:
        task: `'classifier'` or `'detector'`.
        norm: of the classifier, or of the detector's backbone (`studies.norms`).
        batch: images per iteration.
        heads: the norm of the detector's neck and heads; empty for the classifier.
    """

    task: str
    norm: str
    batch: int
    heads: str = ''

    @property
    def name(self) -> str:
        """`classifier_gn-g8_batch32`, `detector_gn-g8_frozen-bn_batch2`."""
        parts = (self.task, self.norm, self.heads, f'batch{self.batch}')
        return '_'.join(filter(None, parts))


@dataclass(frozen=True)
class Cell:
    """One figure of one case, and the paper's beside it where it has one."""

    case: Case
    figure: str
    paper: float | None = None


@dataclass(frozen=True)
class Claim:
    """One table and one figure.

    Attributes:
        key: the letter.
        title: what is compared.
        measured, paper: what the figures are, with their units, here and in the paper.
        corner: what the rows are.
        columns: their names.
        rows: per row its name and one cell per column.
        bars: whether the figure has bars; the rows are points along a line otherwise.
    """

    key: str
    title: str
    measured: str
    paper: str
    corner: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]
    bars: bool = False

    @property
    def cases(self) -> list[Case]:
        """Every network of the claim, once."""
        return list(dict.fromkeys(cell.case for _, row in self.rows for cell in row))


def _classifier(norm: str, batch: int, paper: float | None) -> Cell:
    return Cell(Case('classifier', norm, batch), 'error', paper)


def _detector(
    backbone: str, heads: str, papers: tuple[float | None, float | None]
) -> tuple[Cell, ...]:
    case = Case('detector', backbone, DETECTOR_BATCH, heads)
    return tuple(
        Cell(case, figure, paper)
        for figure, paper in zip(('box_ap', 'mask_ap'), papers, strict=True)
    )


# Table 2.
_BN_ERRORS = (23.6, 23.7, 24.8, 27.3, 34.7)
_GN_ERRORS = (24.1, 24.2, 24.0, 24.2, 24.1)
# Table 3, at 64, 32, 16, 8 and 1 of both: the same parts of a narrowest layer of 64
# channels as 16, 8, 4, 2 and 1 are of 16, but for the last, which is LN or IN in both.
_GROUP_ERRORS = (24.6, 24.1, 24.6, 24.4, 25.3)
_CHANNEL_ERRORS = (24.4, 24.5, 24.2, 24.3, 28.4)

_CLAIM_A = Claim(
    key='a',
    title='Batch Norm needs a large batch, Group Norm does not',
    measured='validation error of a small ResNet on generated shapes, %',
    paper='validation error of ResNet-50 on ImageNet, % (table 2)',
    corner='images per batch',
    columns=('BN', 'GN'),
    rows=tuple(
        (
            str(batch),
            (
                _classifier('bn', batch, bn),
                _classifier(CLASSIFIER_GROUPS, batch, gn),
            ),
        )
        for batch, bn, gn in zip(BATCHES, _BN_ERRORS, _GN_ERRORS, strict=True)
    ),
)

_CLAIM_B = Claim(
    key='b',
    title='Between Layer Norm and Instance Norm',
    measured='validation error of a small ResNet at batch 32, %',
    paper='validation error of ResNet-50 on ImageNet at batch 32, % (table 3), at 64, '
    '32, 16, 8 and 1, its layers being four times as wide',
    corner='groups, or channels per group',
    columns=('number of groups (1: LN)', 'channels per group (1: IN)'),
    rows=tuple(
        (
            str(count),
            (
                _classifier(f'gn-g{count}', BATCHES[0], by_groups),
                _classifier(f'gn-c{count}', BATCHES[0], by_channels),
            ),
        )
        for count, by_groups, by_channels in zip(
            GROUPS, _GROUP_ERRORS, _CHANNEL_ERRORS, strict=True
        )
    ),
)

_AP = 'AP of a small Mask R-CNN on generated shapes, %'
_COLUMNS = ('box AP', 'mask AP')

_CLAIM_C = Claim(
    key='c',
    title='Mask R-CNN from scratch at two images per batch',
    measured=_AP,
    paper='AP of Mask R-CNN R50-FPN from scratch on COCO, % (table 7); its BN is '
    'synchronised over the GPUs',
    corner='norm in backbone, neck and heads',
    columns=_COLUMNS,
    rows=(
        ('GN', _detector(DETECTOR_GROUPS, DETECTOR_GROUPS, (39.5, 35.2))),
        ('BN', _detector('bn', 'bn', (34.5, None))),
        ('frozen BN', _detector('frozen-bn', 'frozen-bn', (None, None))),
    ),
    bars=True,
)

_CLAIM_D = Claim(
    key='d',
    title='Where in the detector Group Norm stands',
    measured=_AP,
    paper='AP of Mask R-CNN R50-FPN, fine-tuned, on COCO, % (table 5); there GN is in '
    'the box head, and in backbone and box head, but not in neck and mask head',
    corner='GN in',
    columns=_COLUMNS,
    rows=(
        ('nothing', _detector('frozen-bn', 'frozen-bn', (38.6, 34.2))),
        ('neck and heads', _detector('frozen-bn', DETECTOR_GROUPS, (39.5, 34.4))),
        ('backbone', _detector(DETECTOR_GROUPS, 'frozen-bn', (None, None))),
        ('all', _detector(DETECTOR_GROUPS, DETECTOR_GROUPS, (40.0, 34.8))),
    ),
    bars=True,
)

CLAIMS = {claim.key: claim for claim in (_CLAIM_A, _CLAIM_B, _CLAIM_C, _CLAIM_D)}
