"""The paths that CUDA tensors take through the substitute, decided without a GPU."""

import functools
import importlib

import pytest
import torch
import torch.distributed as dist

from benchmarks.pretend_cuda import module_to_pretend_cuda, pretend_cuda
from gn_det.compat import mmcv_ext
from gn_det.compat.operators import OPERATORS

mmcv_ext.install()

from mmcv import ops  # noqa: E402  (needs `install`)
from mmcv.ops.carafe import CARAFEPack  # noqa: E402

pytestmark = pytest.mark.skipif(
    not mmcv_ext.is_substitute(), reason='this mmcv has its compiled operators'
)

MAP = (2, 8, 8, 9)
ROIS = torch.tensor([[0, 1, 2, 9, 7.0], [1, 3, 3, 3, 8]])
LABELS = torch.tensor([1, -1, 3, 0])


def attention(layer: torch.nn.Module, query: torch.Tensor) -> torch.Tensor:
    shapes = torch.tensor([[6, 5], [3, 2]], device=query.device)
    starts = torch.tensor([0, 30], device=query.device)
    points = torch.full((2, 36, 2, 2), 0.4, device=query.device)
    return layer(
        query, reference_points=points, spatial_shapes=shapes, level_start_index=starts
    )


def carafe_naive(_: None, x: torch.Tensor) -> torch.Tensor:
    # mmcv's own backward of the naive form refuses the CPU.
    form = ops.carafe_naive if x.is_cuda else ops.carafe
    return form(x, x.new_ones(2, 18, 16, 18), 3, 2, 2)


def on(device: torch.device, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(device)


# By what mmdet calls: the layer or None, the shape of the input, the call.
CASES = {
    'DeformConv2dPack': (lambda: ops.DeformConv2dPack(8, 4, 3), MAP, None),
    'ModulatedDeformConv2dPack': (
        lambda: ops.ModulatedDeformConv2dPack(8, 4, 3),
        MAP,
        None,
    ),
    'SAConv2d': (lambda: ops.SAConv2d(8, 4, 3, padding=1, use_deform=True), MAP, None),
    'CARAFEPack': (lambda: CARAFEPack(8, 2), MAP, None),
    'CARAFENaive': (
        lambda: None,
        MAP,
        carafe_naive,
    ),
    'CornerPool': (lambda: ops.CornerPool('left'), MAP, None),
    'MaskedConv2d': (
        lambda: ops.MaskedConv2d(8, 4, 3, padding=1),
        (1, *MAP[1:]),
        lambda layer, x: layer(x, (x[:, 0] > 0).float()),
    ),
    'RoIAlign': (
        lambda: ops.RoIAlign(3),
        MAP,
        lambda layer, x: layer(x, on(x.device, ROIS)),
    ),
    'DeformRoIPoolPack': (
        lambda: ops.DeformRoIPoolPack(2, 8, 4),
        MAP,
        lambda layer, x: layer(x, on(x.device, ROIS)),
    ),
    'MultiScaleDeformableAttention': (
        lambda: ops.MultiScaleDeformableAttention(
            8, 2, 2, 3, dropout=0, batch_first=True
        ),
        (2, 36, 8),
        attention,
    ),
    'SyncBatchNorm': (lambda: ops.SyncBatchNorm(8), MAP, None),
    'sigmoid_focal_loss': (
        lambda: None,
        (4, 3),
        lambda _, x: ops.sigmoid_focal_loss(x, on(x.device, LABELS)),
    ),
    'softmax_focal_loss': (
        lambda: None,
        (4, 4),
        lambda _, x: ops.softmax_focal_loss(x, on(x.device, LABELS)),
    ),
    'batched_nms': (
        lambda: None,
        (30, 2),
        lambda _, x: boxes_after(x, {'type': 'nms', 'iou_threshold': 0.3}),
    ),
    'soft_nms': (
        lambda: None,
        (30, 2),
        lambda _, x: boxes_after(x, {'type': 'soft_nms', 'iou_threshold': 0.3}),
    ),
    'nms_match': (
        lambda: None,
        (30, 2),
        lambda _, x: on(x.device, torch.cat(ops.nms_match(scored(x), 0.3)).float()),
    ),
    'line_nms': (
        lambda: None,
        (9, 77),
        lambda _, x: torch.stack(
            importlib.import_module('mmcv._ext').line_nms_forward(
                x.abs() * 9, x[:, 0], 20.0, 4
            )[::2]
        ).float(),
    ),
}


def scored(x: torch.Tensor) -> torch.Tensor:
    """Boxes [N, 5] from corners [N, 2]."""
    return torch.cat([x, x + 1, x[:, :1].sigmoid()], 1).detach()


def boxes_after(x: torch.Tensor, config: dict) -> torch.Tensor:
    boxes, scores = scored(x).split([4, 1], 1)
    classes = torch.arange(len(x), device=x.device) % 2
    return ops.batched_nms(boxes, scores[:, 0], classes, config)[0]


@pytest.fixture
def one_process(tmp_path):
    store = dist.FileStore(str(tmp_path / 'store'), 1)
    dist.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def reached(monkeypatch):
    """The operators called."""
    module = importlib.import_module('mmcv._ext')
    names = set()

    def record(name: str, operator: object) -> object:
        @functools.wraps(operator)
        def recorded(*args: object, **kwargs: object) -> object:
            names.add(name)
            return operator(*args, **kwargs)

        return recorded

    for name, operator in OPERATORS.items():
        monkeypatch.setattr(module, name, record(name, operator))
    return names


def result_and_gradients(case: str, pretend: bool) -> list[torch.Tensor]:
    build, shape, call = CASES[case]
    torch.manual_seed(0)
    layer, x = build(), torch.randn(shape)
    for parameter in layer.parameters() if layer else ():
        torch.nn.init.normal_(parameter, std=0.3)
    if pretend:
        layer, x = layer and module_to_pretend_cuda(layer), x.cuda()
    x.requires_grad_()
    output = call(layer, x) if call else layer(x)
    leaves = [x, *(layer.parameters() if layer else ())]
    if output.requires_grad:
        upstream = torch.linspace(-1, 1, output.numel(), device=output.device)
        output.backward(upstream.view(output.shape))
    assert output.is_cuda == pretend
    results = [output.detach(), *(t.grad for t in leaves if t.grad is not None)]
    return [result.cpu() for result in results]


@pytest.mark.parametrize('case', CASES)
def test_cuda_tensors_get_the_same_result(case, one_process):
    expected = result_and_gradients(case, pretend=False)
    with pretend_cuda():
        results = result_and_gradients(case, pretend=True)
    assert len(results) == len(expected)
    for ours, of_cpu in zip(results, expected, strict=True):
        torch.testing.assert_close(ours, of_cpu)


def test_the_cases_reach_every_operator(reached, one_process):
    with pretend_cuda():
        for case in CASES:
            result_and_gradients(case, pretend=True)
    assert reached == {name for name in OPERATORS if not name.startswith('get_')}


def test_pretending_refuses_what_cuda_refuses():
    with pretend_cuda():
        x = torch.rand(4).cuda()
        assert x.device.type == 'cuda'
        assert torch.ones(2).long().to(x).dtype == x.dtype
        with pytest.raises(RuntimeError, match='a tensor of the CPU among'):
            x + torch.rand(4)
        with pytest.raises(NotImplementedError, match='histogram'):
            torch.histogram(x, 4)
        with pytest.raises(TypeError, match='numpy'):
            x.numpy()
