"""What only a GPU can show: graphs, streams, devices."""

import pytest
import torch

from gn_det.ops import dispatch, group_norm
from tests.ops.cases import LAYOUTS, make_case, run

pytestmark = pytest.mark.gpu

SHAPE = (2, 256, 50, 84)


@pytest.mark.parametrize('layout', LAYOUTS)
def test_cuda_graph(layout):
    case = make_case(SHAPE, 32, layout=layout, kind='residual_relu')
    expected, expected_gradients = run(case, 'triton')
    x = case.x.clone()
    leaf = x.requires_grad_()

    def step():
        y = group_norm(
            leaf,
            32,
            case.weight,
            case.bias,
            activation='relu',
            residual=case.residual,
            impl='triton',
        )
        return y, torch.autograd.grad(y, leaf, case.dy)[0]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y, dx = step()
    for _ in range(3):
        graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(y, expected)
    assert torch.equal(dx, expected_gradients[0])


def test_two_streams():
    cases = [make_case(SHAPE, 32, kind='relu', seed=seed) for seed in (0, 1)]
    expected = [run(case, 'triton') for case in cases]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    torch.cuda.synchronize()
    results = [[], []]
    for _ in range(20):
        for found, case, stream in zip(results, cases, streams, strict=True):
            with torch.cuda.stream(stream):
                found.append(run(case, 'triton'))
    torch.cuda.synchronize()
    for found, (y, gradients) in zip(results, expected, strict=True):
        for other_y, other_gradients in found:
            assert torch.equal(other_y, y)
            assert torch.equal(other_gradients[0], gradients[0])


def test_second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip('needs a second CUDA device')
    case = make_case(SHAPE, 32)
    expected, _ = run(case, 'triton')
    x = case.x.to('cuda:1')
    y = group_norm(
        x, 32, case.weight.to('cuda:1'), case.bias.to('cuda:1'), impl='triton'
    )
    assert y.device == x.device
    assert torch.equal(y.cpu(), expected.cpu())
    assert torch.cuda.current_device() == 0


def test_auto_takes_triton():
    x = torch.randn(2, 4, 3, device='cuda')
    assert dispatch.select(x, 'auto') is dispatch.triton_launch
