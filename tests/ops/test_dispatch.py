"""Choice of implementation, its reasons, and the launcher around the kernels."""

import contextlib
import logging
import os
import subprocess
import sys
import threading

import pytest
import torch

from benchmarks.shapes import SHAPES
from gn_det.ops import dispatch, group_norm, implementation, triton_launch
from gn_det.ops import unsupported_reason as reason
from tests.ops.cases import DEVICE, LIMITS, make_case


@pytest.fixture
def chosen(monkeypatch):
    """Names of the implementations whose forward ran, in order."""
    names = []
    for name, module in (
        ('torch', dispatch.torch_impl),
        ('triton', dispatch.triton_launch),
    ):

        def spy(*args, name=name, forward=module.group_norm_fwd):
            names.append(name)
            return forward(*args)

        monkeypatch.setattr(module, 'group_norm_fwd', spy)
    return names


def test_argument_over_context_over_auto(chosen):
    x = torch.randn(2, 4, 3, device='cpu')
    if triton_launch.INTERPRETED:
        group_norm(x, 2)
        assert chosen == ['torch']
    x = x.to(DEVICE)
    with implementation('torch'):
        group_norm(x, 2)
        assert chosen[-1] == 'torch'
        group_norm(x, 2, impl='triton')
        assert chosen[-1] == 'triton'
        with implementation('triton'):
            group_norm(x, 2)
            assert chosen[-1] == 'triton'
        group_norm(x, 2)
        assert chosen[-1] == 'torch'


def test_compiled_backward_runs_on_what_forward_ran_on(chosen, monkeypatch):
    """Whatever is in force when it runs; another choice forward compiles anew."""
    torch._dynamo.reset()
    ran = []
    for name, module in (('torch', dispatch.torch_impl), ('triton', triton_launch)):

        def spy(*args, name=name, backward=module.group_norm_bwd):
            ran.append(name)
            return backward(*args)

        monkeypatch.setattr(module, 'group_norm_bwd', spy)
    x = torch.randn(2, 4, 3, device=DEVICE, requires_grad=True)
    compiled = torch.compile(
        lambda x: group_norm(x, 2), fullgraph=True, backend='aot_eager'
    )
    names = ('torch', 'triton', 'torch')
    if torch.__version__ < (2, 15):
        names = names[:1]
    for name in names:
        with implementation(name):
            y = compiled(x)
        with implementation('triton' if name == 'torch' else 'torch'):
            y.sum().backward()
        assert (chosen[-1], ran[-1]) == (name, name)


def test_context_is_local_to_its_thread(chosen):
    x = torch.randn(2, 4, 3, device='cpu')
    with implementation('triton'):
        other = threading.Thread(target=lambda: group_norm(x, 2))
        other.start()
        other.join()
    assert chosen == ['torch']


def test_unknown_names_list_the_choices():
    x = torch.randn(2, 4, 3)
    with pytest.raises(ValueError, match="auto, torch, triton, but got 'cuda'"):
        group_norm(x, 2, impl='cuda')
    with pytest.raises(ValueError, match="but got 'fast'"), implementation('fast'):
        pass


def test_backward_runs_on_what_forward_ran_on(monkeypatch):
    ran = []
    backward = triton_launch.group_norm_bwd
    monkeypatch.setattr(
        triton_launch,
        'group_norm_bwd',
        lambda *args: ran.append('triton') or backward(*args),
    )
    x = torch.randn(2, 4, 3, device=DEVICE, requires_grad=True)
    with implementation('triton'):
        y = group_norm(x, 2)
    torch.autograd.grad(y, x, torch.randn_like(y))
    assert ran == ['triton']


def test_reasons():
    x = torch.randn(2, 4, 3, device=DEVICE)
    assert reason(x) is None
    assert 'float64' in reason(x.double())
    huge = torch.empty(1, device=DEVICE).expand(2, 4, 2**30)
    assert 'positions' in reason(huge)
    with pytest.raises(RuntimeError, match=r"'triton' was asked for, but .*float64"):
        group_norm(x.double(), 2, impl='triton')


def test_auto_logs_the_reason_once(monkeypatch, caplog):
    monkeypatch.setattr(dispatch, '_logged', set())
    x = torch.randn(2, 4, 3)
    with caplog.at_level(logging.INFO, logger='gn_det.ops.dispatch'):
        group_norm(x, 2)
        group_norm(x, 2)
    assert [record.getMessage() for record in caplog.records] == [
        'group_norm uses torch: x is on cpu'
    ]


def run_python(code: str, **environment) -> str:
    """What `code` prints in a fresh interpreter."""
    clean = {k: v for k, v in os.environ.items() if k != 'TRITON_INTERPRET'}
    done = subprocess.run(
        [sys.executable, '-c', code],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_without_gpu_and_interpreter():
    code = (
        'import torch\n'
        'from gn_det.ops import group_norm, unsupported_reason\n'
        'x = torch.randn(2, 4, 3)\n'
        'assert group_norm(x, 2).shape == x.shape\n'
        'print(unsupported_reason(x))\n'
    )
    assert 'need a CUDA tensor, but x is on cpu' in run_python(code)


def test_without_triton():
    code = (
        'import sys\n'
        "sys.modules['triton'] = None\n"
        'import torch\n'
        'from gn_det.ops import group_norm, unsupported_reason\n'
        'x = torch.randn(2, 4, 3)\n'
        'assert group_norm(x, 2).shape == x.shape\n'
        'print(unsupported_reason(x))\n'
    )
    assert 'Triton cannot be imported' in run_python(code)


def test_the_environment_chooses_for_a_process():
    code = (
        'import torch\n'
        'from gn_det.ops import group_norm\n'
        'try:\n'
        '    group_norm(torch.randn(2, 4, 3), 2)\n'
        'except Exception as error:\n'
        '    print(error)\n'
    )
    assert 'need a CUDA tensor' in run_python(code, GN_DET_IMPL='triton')
    assert "GN_DET_IMPL) must be one of auto, torch, triton, but got 'Torch'" in (
        run_python(code, GN_DET_IMPL='Torch')
    )
    assert run_python(code, GN_DET_IMPL='') == ''


WITHOUT_A_COMPILER = """
import logging
from types import SimpleNamespace
import torch
from triton.backends.nvidia import driver
from gn_det.ops import group_norm

class OnCuda(torch.Tensor):
    is_cuda = True

    def get_device(self):
        return 0

# A CUDA device as far as anyone asks before the first kernel is built.
driver.CudaDriver.is_active = staticmethod(lambda: True)
torch.cuda.get_device_capability = lambda device: (9, 0)
torch.cuda.get_device_properties = lambda device: SimpleNamespace(
    multi_processor_count=132
)
torch.cuda.current_device = lambda: 0
zeros = torch.zeros
torch.zeros = lambda *size, device: zeros(*size).as_subclass(OnCuda)
logging.basicConfig(format='%(levelname)s %(message)s')
values = torch.randn(2, 4, 3)
x = values.as_subclass(OnCuda)
expected = torch.nn.functional.group_norm(values, 2)
for _ in range(2):
    torch.testing.assert_close(group_norm(x, 2).as_subclass(torch.Tensor), expected)
try:
    group_norm(x, 2, impl='triton')
except RuntimeError as error:
    print(error)
"""


def test_without_a_compiler_auto_falls_back_with_one_warning(tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_A_COMPILER],
        env={
            'PATH': '',
            'PYTHONPATH': os.environ.get('PYTHONPATH', '.'),
            'TRITON_CACHE_DIR': str(tmp_path),
            'TRITON_LIBCUDA_PATH': str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if 'uses torch' in line]
    assert len(warnings) == 1, done.stderr
    assert warnings[0].startswith('WARNING group_norm uses torch: a first small Triton')
    assert 'Failed to find C compiler' in warnings[0]
    assert "'triton' was asked for, but a first small" in done.stdout
    assert 'Triton needs a C compiler, gcc or clang or what CC names' in done.stdout


def test_eps_reaches_the_kernels_as_a_float(monkeypatch):
    """An integer would be compiled in as a constant and launched as if it were one."""
    call = triton_launch.Launch.__call__
    found = []

    def noting(launch, aligned, *args):
        found.append(args[-1])
        return call(launch, aligned, *args)

    monkeypatch.setattr(triton_launch.Launch, '__call__', noting)
    x = torch.randn(2, 4, 3, device=DEVICE)
    group_norm(x, 2, eps=1, impl='triton')
    assert [(type(eps), eps) for eps in found] == [(float, 1.0)]


class FakeKernel:
    """Stands for a compiled kernel: records how it is launched."""

    arg_names = ('p_x', 'p_y', 'HW', 'C', 'BLOCK')

    def __init__(self):
        self.calls = []

    def __getitem__(self, grid):
        def launch(*args, **kwargs):
            self.calls.append(('analysed', grid, len(args), kwargs))
            return self.compiled()

        return launch

    def compiled(self):
        kernel = self

        class Compiled:
            def __getitem__(self, grid):
                return lambda *args: kernel.calls.append(('direct', grid, args))

        return Compiled()


def test_launch_reuses_the_compiled_kernel_for_aligned_pointers():
    kernel = FakeKernel()
    scalars = {'C': 8, 'HW': 9, 'NOT_TAKEN': 1}
    launch = triton_launch.Launch(kernel, 7, 4, scalars, BLOCK=32, UNUSED=1)
    x = torch.empty(64)
    launch(False, x[1:], x)
    launch(True, x, x)
    launch(True, x, x)
    launch(False, x, x[1:])
    kinds = [call[0] for call in kernel.calls]
    assert kinds == ['analysed', 'analysed', 'direct', 'analysed']
    assert all(call[1] == (7, 1, 1) for call in kernel.calls)
    assert kernel.calls[0][3]['num_warps'] == 4
    direct = kernel.calls[2][2]
    # Every parameter in the kernel's own order, constants last.
    assert direct[2:] == (9, 8, 32)


@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
@pytest.mark.parametrize('regime', ['on-chip', 'split'])
@pytest.mark.parametrize(
    'shifted', [None, 'x', 'weight', 'bias', 'residual', 'dy', 'y', 'mean', 'rstd']
)
def test_launches_know_whether_their_pointers_are_aligned(
    monkeypatch, use_limits, shifted, regime, channels_last
):
    """Slices at an odd storage offset reach Triton's analysis and give equal bits."""
    use_limits(LIMITS[regime])
    call = triton_launch.Launch.__call__
    flags = []

    def checked(launch, aligned, *args):
        pointers = [arg.data_ptr() for arg in args if isinstance(arg, torch.Tensor)]
        assert not aligned or all(pointer % 16 == 0 for pointer in pointers)
        flags.append(aligned)
        return call(launch, aligned, *args)

    monkeypatch.setattr(triton_launch.Launch, '__call__', checked)
    layout = 'nhwc' if channels_last else 'nchw'
    case = make_case((2, 8, 6, 5), 2, layout=layout, kind='residual_relu')
    tensors = {
        **{'x': case.x, 'weight': case.weight, 'bias': case.bias},
        **{'residual': case.residual, 'dy': case.dy},
    }

    def put(name, tensor):
        if name != shifted:
            return tensor
        storage = torch.empty(tensor.numel() + 1, dtype=tensor.dtype, device=DEVICE)
        moved = storage[1:].as_strided(tensor.shape, tensor.stride(), 1)
        return moved.copy_(tensor)

    def both(put):
        t = {name: put(name, tensor) for name, tensor in tensors.items()}
        forward = triton_launch.group_norm_fwd(
            t['x'], 2, t['weight'], t['bias'], 1e-5, 'relu', t['residual']
        )
        y, mean, rstd = (
            put(*item) for item in zip(('y', 'mean', 'rstd'), forward, strict=True)
        )
        backward = triton_launch.group_norm_bwd(
            *(t['dy'], t['x'], 2, t['weight'], t['bias'], 1e-5, 'relu'),
            *(y, mean, rstd, (True, True, True)),
        )
        return (*forward, *backward)

    expected = both(lambda name, tensor: tensor)
    assert all(flags)
    flags.clear()
    for one, other in zip(both(put), expected, strict=True):
        assert torch.equal(one, other)
    assert all(flags) == (shifted is None)


@pytest.mark.parametrize('name', ['group_norm_fwd', 'group_norm_bwd'])
def test_launches_are_made_on_the_device_of_x(monkeypatch, name):
    current = 0

    @contextlib.contextmanager
    def device(index):
        nonlocal current
        current, before = index, current
        yield
        current = before

    class OnSecondDevice(torch.Tensor):
        def get_device(self):
            return 1

    class Reached(Exception):
        pass

    def reached(x):
        assert current == 1
        raise Reached

    monkeypatch.setattr(torch.cuda, 'current_device', lambda: current)
    monkeypatch.setattr(torch.cuda, 'device', device)
    monkeypatch.setattr(triton_launch, 'dense', reached)
    x = torch.empty(2, 4, 3).as_subclass(OnSecondDevice)
    arguments = {
        'group_norm_fwd': (x, 2, None, None, 1e-5, None, None),
        'group_norm_bwd': (x, x, 2, None, None, 1e-5, None, None, x, x, (True,) * 3),
    }
    with pytest.raises(Reached):
        getattr(triton_launch, name)(*arguments[name])


def test_plans_are_made_once_per_shape():
    triton_launch.clear_plans()
    x = torch.randn(2, 4, 3, device=DEVICE)
    for _ in range(3):
        group_norm(x, 2, impl='triton')
    info = triton_launch._cached_fwd.cache_info()
    assert (info.misses, info.hits) == (1, 2)


def test_arguments_come_in_the_order_in_which_launch_passes_them():
    """Pointers and eps, sizes that are arguments, constants."""
    for module in (triton_launch.shared, triton_launch.nchw, triton_launch.nhwc):
        for name, kernel in vars(module).items():
            if not (name.startswith('gn_') and name.endswith('_kernel')):
                continue
            constants = kernel.fn.__annotations__
            ranks = [
                argument.isupper() + (argument in constants)
                for argument in kernel.arg_names
            ]
            assert ranks == sorted(ranks), name


@pytest.mark.parametrize('itemsize', [2, 4])
@pytest.mark.parametrize('channels_last', [False, True], ids=['nchw', 'nhwc'])
def test_no_grid_is_slightly_more_than_runs_at_once(channels_last, itemsize):
    """272 programs on 264 places would take twice as long as 264 do."""
    seen = 0
    for shape in SHAPES:
        config = triton_launch.LaunchConfig.for_shape(
            shape.N,
            shape.C,
            shape.H * shape.W,
            shape.G,
            itemsize=itemsize,
            channels_last=channels_last,
        )
        for tile in (config.fwd, config.bwd):
            if not tile.on_chip:
                places = 132 * LIMITS['on-chip'].programs_per_sm * 8 // tile.num_warps
                waves = tile.programs / places
                assert waves <= 1 or waves % 1 > 0.5, (shape.name, tile)
                seen += 1
    assert seen > len(SHAPES)
