"""The exported graph gives the model's detections, in onnxruntime on a CPU.

Boxes agree within 0.01 pixel, scores and masks within 1e-3: InstanceNormalization, as
which the norms stand in the graph, sums in another order than torch's, and some forty
layers carry that on; the differences seen are ten times smaller.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gn_det.ops import group_norm
from gn_det.workbench.errors import UserError
from gn_det.workbench.onnx_export import export_onnx
from tests.fusion.detectors import R18, batch, fused, model_config, predictions
from tests.fusion.detectors import randomise as randomise_weights

onnx = pytest.importorskip('onnx', reason='needs onnx, onnxscript and onnxruntime')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')

# Neither side is a multiple of the 32 that images are padded to.
SIZE = (70, 100)


@pytest.fixture(scope='module', autouse=True)
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='module')
def model():
    config = model_config(R18)
    config.data_preprocessor.bgr_to_rgb = True
    # So few pass that rows stay empty.
    config.test_cfg.rcnn.score_thr = 0.55
    model = fused(config)
    randomise_weights(model)
    return model.train()


@pytest.fixture(scope='module')
def exported(model, tmp_path_factory):
    path = tmp_path_factory.mktemp('onnx') / 'model.onnx'
    export_onnx(model, path, SIZE)
    assert model.training
    assert [file.name for file in path.parent.iterdir()] == ['model.onnx']
    return path


def mask_probabilities(model, data):
    """The detections, and what the mask head says of each before pasting."""
    logits = []
    hook = model.roi_head.mask_head.register_forward_hook(
        lambda module, inputs, output: logits.append(output)
    )
    try:
        model.eval()
        (found,) = predictions(model, data)
    finally:
        hook.remove()
        model.train()
    masks = logits[0].sigmoid()[torch.arange(len(found)), found.labels]
    return found, masks


def test_onnxruntime_finds_what_the_model_finds(model, exported):
    session = onnxruntime.InferenceSession(exported, providers=['CPUExecutionProvider'])
    names = [output.name for output in session.get_outputs()]
    assert names == ['boxes', 'labels', 'scores', 'masks']
    counts = []
    for seed in range(4):
        data = batch(*SIZE, images=1, seed=seed)
        image = data['inputs'][0][None].float().numpy()
        boxes, labels, scores, masks = session.run(None, {'image': image})
        found, probabilities = mask_probabilities(model, data)
        n = len(found)
        counts.append(n)
        assert boxes.shape == (10, 4)
        assert masks.shape == (10, 28, 28)
        np.testing.assert_array_equal(labels[:n], found.labels)
        np.testing.assert_allclose(boxes[:n], found.bboxes, rtol=0, atol=1e-2)
        np.testing.assert_allclose(scores[:n], found.scores, rtol=0, atol=1e-3)
        np.testing.assert_allclose(masks[:n], probabilities, rtol=0, atol=1e-3)
        assert (labels[n:] == -1).all()
        assert (scores[n:] == 0).all()
        assert (boxes[n:] == 0).all()
    assert min(counts) > 0
    assert min(counts) < 10


def test_the_graph_holds_operators_of_onnx_only(exported):
    graph = onnx.load(exported)
    onnx.checker.check_model(graph)
    assert [(o.domain, o.version) for o in graph.opset_import] == [('', 18)]
    assert not graph.functions
    kinds = [node.op_type for node in graph.graph.node]
    assert {node.domain for node in graph.graph.node} == {''}
    norms = kinds.count('InstanceNormalization') + kinds.count('GroupNormalization')
    assert norms == 36


def test_nms_across_classes(tmp_path):
    config = model_config(R18)
    config.test_cfg.rcnn.score_thr = 0.05
    config.test_cfg.rcnn.max_per_img = 50
    counts = []
    for class_agnostic in (False, True):
        nms = dict(type='nms', iou_threshold=0.2, class_agnostic=class_agnostic)
        config.test_cfg.rcnn.nms = nms
        model = fused(config)
        randomise_weights(model)
        export_onnx(model, tmp_path / 'model.onnx', SIZE)
        session = onnxruntime.InferenceSession(
            tmp_path / 'model.onnx', providers=['CPUExecutionProvider']
        )
        data = batch(*SIZE, images=1)
        image = data['inputs'][0][None].float().numpy()
        boxes, labels, *_ = session.run(None, {'image': image})
        (found,) = predictions(model.eval(), data)
        counts.append(len(found))
        np.testing.assert_array_equal(labels[: len(found)], found.labels)
        np.testing.assert_allclose(boxes[: len(found)], found.bboxes, rtol=0, atol=1e-2)
        assert (labels[len(found) :] == -1).all()
    assert counts[1] < counts[0]


def without_mean(model):
    model.data_preprocessor = nn.Identity()


def with_maximum(model):
    for layer in model.roi_head.mask_roi_extractor.roi_layers:
        layer.pool_mode = 'max'


REFUSED = {
    'soft_nms': (
        lambda m: m.test_cfg.rcnn.update(nms=dict(type='soft_nms')),
        r'knows nms, not soft_nms: test_cfg\.rcnn\.nms',
    ),
    'no-nms': (lambda m: m.test_cfg.rpn.update(nms=None), 'knows nms, not None'),
    'nms-setting': (
        lambda m: m.test_cfg.rcnn.nms.update(max_num=5),
        r'does not know max_num of test_cfg\.rcnn\.nms',
    ),
    'no-mean': (without_mean, 'needs mean and std in the data_preprocessor'),
    'pooling': (with_maximum, 'knows RoIAlign that averages'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_be_expressed_is_refused(case, tmp_path):
    spoil, said = REFUSED[case]
    model = fused(model_config(R18))
    spoil(model)
    path = tmp_path / 'model.onnx'
    path.write_bytes(b'older')
    model.backbone.eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(UserError, match=said):
        export_onnx(model, path, SIZE)
    assert path.read_bytes() == b'older'
    assert [module.training for module in model.modules()] == modes


def test_what_is_no_detector_or_no_place_is_refused(model, tmp_path):
    with pytest.raises(UserError, match='Sequential has no RPN'):
        export_onnx(nn.Sequential(), tmp_path / 'model.onnx', SIZE)
    with pytest.raises(UserError, match='is a folder; name the ONNX file'):
        export_onnx(model, tmp_path, SIZE)
    with pytest.raises(UserError, match=r'there is no folder .*absent'):
        export_onnx(model, tmp_path / 'absent' / 'model.onnx', SIZE)


class Norm(nn.Module):
    def forward(self, x, weight, bias, residual):
        return group_norm(x, 2, weight, bias, activation='relu', residual=residual)


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.filterwarnings('ignore:`torch.jit.trace`:DeprecationWarning')
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16], ids=['fp32', 'bf16'])
def test_traces_hold_torchs_operators(dtype):
    """`torch.jit.trace` and any other ONNX export, of a norm with all it takes in."""
    torch.manual_seed(0)
    x, residual = torch.randn(2, 1, 6, 4, 5).to(dtype)
    inputs = (x, torch.randn(6), torch.randn(6), residual)
    traced = torch.jit.trace(Norm(), inputs)
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert 'aten::group_norm' in kinds
    assert {kind.partition('::')[0] for kind in kinds} == {'aten', 'prim'}
    torch.testing.assert_close(traced(*inputs), Norm()(*inputs), rtol=0, atol=0)
