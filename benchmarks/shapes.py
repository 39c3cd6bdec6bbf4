"""Every Group Norm call of Mask R-CNN FPN, the constants of tests and benchmarks.

Two images of 800 x 1333, padded to 800 x 1344; 32 groups; ResNet with the stride in
the 3 x 3 convolution, so that the first 1 x 1 of a stage still sees the previous
resolution; 512 box and 128 mask regions an image. The pooled P6 level has no norm.
"""

from dataclasses import dataclass

GROUPS = 32
KINDS = ('plain', 'relu', 'residual_relu')
MODELS = ('r50', 'r101')


@dataclass(frozen=True)
class Shape:
    """One map (N, C, H, W), what is fused into its norm, and its calls per forward.

    `frozen` marks the stem and res2, which fine-tuning schedules do not train: they
    run forward only.
    """

    name: str
    N: int
    C: int
    H: int
    W: int
    kind: str
    r50: int
    r101: int
    frozen: bool = False
    G: int = GROUPS

    @property
    def elements(self) -> int:
        return self.N * self.C * self.H * self.W

    def calls(self, model: str) -> int:
        """Calls in one forward pass of 'r50' or 'r101'."""
        return {'r50': self.r50, 'r101': self.r101}[model]


SHAPES = (
    Shape('stem', 2, 64, 400, 672, 'relu', 1, 1, frozen=True),
    Shape('res2', 2, 64, 200, 336, 'relu', 6, 6, frozen=True),
    Shape('res2-end', 2, 256, 200, 336, 'residual_relu', 3, 3, frozen=True),
    Shape('res2-downsample', 2, 256, 200, 336, 'plain', 1, 1, frozen=True),
    Shape('res3-first', 2, 128, 200, 336, 'relu', 1, 1),
    Shape('res3', 2, 128, 100, 168, 'relu', 7, 7),
    Shape('res3-end', 2, 512, 100, 168, 'residual_relu', 4, 4),
    Shape('res3-downsample', 2, 512, 100, 168, 'plain', 1, 1),
    Shape('res4-first', 2, 256, 100, 168, 'relu', 1, 1),
    Shape('res4', 2, 256, 50, 84, 'relu', 11, 45),
    Shape('res4-end', 2, 1024, 50, 84, 'residual_relu', 6, 23),
    Shape('res4-downsample', 2, 1024, 50, 84, 'plain', 1, 1),
    Shape('res5-first', 2, 512, 50, 84, 'relu', 1, 1),
    Shape('res5', 2, 512, 25, 42, 'relu', 5, 5),
    Shape('res5-end', 2, 2048, 25, 42, 'residual_relu', 3, 3),
    Shape('res5-downsample', 2, 2048, 25, 42, 'plain', 1, 1),
    Shape('fpn-p2', 2, 256, 200, 336, 'plain', 2, 2),
    Shape('fpn-p3', 2, 256, 100, 168, 'plain', 2, 2),
    Shape('fpn-p4', 2, 256, 50, 84, 'plain', 2, 2),
    Shape('fpn-p5', 2, 256, 25, 42, 'plain', 2, 2),
    Shape('box-head', 1024, 256, 7, 7, 'relu', 4, 4),
    Shape('mask-head', 256, 256, 14, 14, 'relu', 4, 4),
)
