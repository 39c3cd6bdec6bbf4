"""The substitute for `mmcv._ext`: when it is found, what it holds, what it refuses."""

import ast
import importlib
import importlib.util
import inspect
import os
import pkgutil
import subprocess
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch

from gn_det.compat import mmcv_ext
from gn_det.compat.operators import OPERATORS

mmcv_ext.install()

from mmcv import ops  # noqa: E402  (needs `install`)

REPOSITORY = Path(mmcv_ext.__file__).parents[2]

needs_substitute = pytest.mark.skipif(
    not mmcv_ext.is_substitute(), reason='this mmcv has its compiled operators'
)


def run_python(code: str) -> list[str]:
    """Run `code` in a fresh interpreter that can import gn_det; return its lines."""
    path = os.pathsep.join([str(REPOSITORY), os.environ.get('PYTHONPATH', '')])
    result = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@needs_substitute
def test_module_has_a_spec():
    spec = importlib.util.find_spec('mmcv._ext')
    assert spec.name == 'mmcv._ext'
    assert spec.origin == 'gn_det.compat.mmcv_ext'
    module = importlib.import_module('mmcv._ext')
    assert module.__spec__.origin == spec.origin


@needs_substitute
def test_hosts_take_the_operators_for_present():
    from mmcv.utils.env import collect_env
    from mmengine.utils.dl_utils.misc import mmcv_full_available

    assert mmcv_full_available()
    env = collect_env()
    assert env['MMCV Compiler'].startswith('not compiled')
    assert env['MMCV CUDA Compiler'] == 'not available'


def test_finder_answers_for_one_name_only_and_stands_last():
    finders = [f for f in sys.meta_path if isinstance(f, mmcv_ext._Finder)]
    mmcv_ext.install()
    assert len(finders) == 1
    assert [f for f in sys.meta_path if isinstance(f, mmcv_ext._Finder)] == finders
    finder = finders[0]
    assert sys.meta_path.index(finder) > sys.meta_path.index(
        importlib.machinery.PathFinder
    )
    assert finder.find_spec('mmcv._ext', None) is not None
    for other in ('mmcv', 'mmcv._ext2', 'mmcv._ext.nms', '_ext', 'other._ext'):
        assert finder.find_spec(other, None) is None


@pytest.mark.parametrize('compiled', [True, False])
def test_compiled_module_wins(tmp_path, compiled):
    """A module file in the mmcv package stands for the compiled one."""
    if compiled:
        (tmp_path / '_ext.py').write_text("nms = 'compiled'\n")
    elif not mmcv_ext.is_substitute():
        pytest.skip('this mmcv has its compiled operators')
    lines = run_python(
        'import mmcv\n'
        f'mmcv.__path__.insert(0, {str(tmp_path)!r})\n'
        'from gn_det.compat import mmcv_ext\n'
        'mmcv_ext.install()\n'
        'print(mmcv_ext.is_substitute())\n'
        'import mmcv._ext\n'
        'print(mmcv._ext.nms if mmcv._ext.nms == "compiled" else "ours")\n'
        'print(mmcv_ext.is_substitute())\n'
    )
    expected = ['False', 'compiled', 'False'] if compiled else ['True', 'ours', 'True']
    assert lines == expected


def test_install_imports_no_host():
    """Loaded by its file, so that `gn_det/__init__.py` has no part in it."""
    lines = run_python(
        'import importlib.util, sys\n'
        'spec = importlib.util.spec_from_file_location('
        f'"mmcv_ext", {mmcv_ext.__file__!r})\n'
        'module = importlib.util.module_from_spec(spec)\n'
        'spec.loader.exec_module(module)\n'
        'module.install()\n'
        'print(*sorted({"mmcv", "torch", "torchvision"} & set(sys.modules)), "end")\n'
    )
    assert lines == ['end']


@pytest.mark.parametrize('operator', [None, len])
def test_mmdet_imported_first_gives_a_warning(operator, monkeypatch):
    """onedl-mmdet sets to None what it cannot import, and fails when it is called."""
    monkeypatch.setattr(sys, 'meta_path', [])
    masks = types.SimpleNamespace(roi_align=operator)
    monkeypatch.setitem(sys.modules, 'mmdet.structures.mask.structures', masks)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        mmcv_ext.install()
    assert [str(w.message).endswith('import gn_det first') for w in caught] == (
        [True] if operator is None else []
    )


def test_no_mmcv_is_no_substitute(monkeypatch):
    monkeypatch.setattr(mmcv_ext, '_MODULE', 'no_such_package._ext')
    assert not mmcv_ext.is_substitute()


@needs_substitute
@pytest.mark.parametrize('name', ['__path__', '__wrapped__', '_repr_html_'])
def test_private_names_are_absent(name):
    module = importlib.import_module('mmcv._ext')
    with pytest.raises(AttributeError, match=name):
        getattr(module, name)


@needs_substitute
def test_missing_operator_is_one_sentence_with_its_name():
    module = importlib.import_module('mmcv._ext')
    operator = module.psamask_forward
    assert operator is module.psamask_forward
    assert operator.__name__ == 'psamask_forward'
    with pytest.raises(NotImplementedError) as caught:
        operator(1, key=2)
    message = str(caught.value)
    assert "'psamask_forward'" in message
    assert 'install an mmcv built with its compiled operators' in message
    assert '\n' not in message


class RoIExtractor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.roi_layers = torch.nn.ModuleList([ops.RoIPool(2)])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.roi_layers[0](features, torch.zeros(1, 5))


@needs_substitute
def test_missing_operators_say_who_asks_and_what_to_use():
    with pytest.raises(
        NotImplementedError,
        match=r"'roi_pool_forward' \(asked for by RoIPool of RoIExtractor\).*RoIAlign",
    ):
        RoIExtractor()(torch.rand(1, 4, 3, 3))
    boxes = torch.rand(2, 5)
    with pytest.raises(NotImplementedError, match="'nms_rotated' is not among"):
        ops.nms_rotated(boxes, torch.rand(2), 0.5)


def test_all_of_mmcv_ops_and_mmdet_models_import():
    names = [module.name for module in pkgutil.iter_modules(ops.__path__)]
    assert len(names) > 50
    for name in names:
        importlib.import_module(f'mmcv.ops.{name}')
    for name in ops.__all__:
        assert hasattr(ops, name)
    models = importlib.import_module('mmdet.models')
    assert models.MaskRCNN.__module__ == 'mmdet.models.detectors.mask_rcnn'


def calls_of_operators() -> list[tuple[str, str, int, tuple[str, ...]]]:
    """Every `ext_module.<operator>(…)` in `mmcv.ops` of an operator supplied here."""
    calls = []
    for path in sorted(Path(ops.__file__).parent.glob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == 'ext_module'
                and node.func.attr in OPERATORS
                and not any(isinstance(arg, ast.Starred) for arg in node.args)
            ):
                keywords = tuple(keyword.arg for keyword in node.keywords)
                calls.append((path.stem, node.func.attr, len(node.args), keywords))
    return calls


def test_signatures_are_those_mmcv_calls():
    calls = calls_of_operators()
    # `nms_match` is called with unpacked arguments only; mmcv 2.1 has no `line_nms`.
    not_called = set(OPERATORS) - {operator for _, operator, _, _ in calls}
    assert not_called <= {'nms_match', 'line_nms_forward'}
    for file, operator, positional, keywords in calls:
        signature = inspect.signature(OPERATORS[operator])
        bound = signature.bind(*range(positional), **dict.fromkeys(keywords))
        assert list(bound.arguments) == list(signature.parameters), (file, operator)


def test_operators_leave_no_trace_for_autograd():
    features = torch.rand(1, 2, 5, 5, requires_grad=True)
    output = torch.zeros(1, 2, 2, 2)
    none = features.new_zeros(0)
    rois = torch.tensor([[0, 1, 1, 3, 3.0]])
    OPERATORS['roi_align_forward'](
        features, rois, output, none, none, 2, 2, 1.0, 0, 1, True
    )
    assert output.abs().sum() > 0
    assert not output.requires_grad
