"""The detectors' benchmark on a CPU: gate, rows, file; the times mean nothing there."""

import contextlib
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import bench_detector, detector_profile
from benchmarks.bench_detector import main, parse_args, suffix
from benchmarks.detector_data import make_batch, padded
from benchmarks.detector_gate import Step
from benchmarks.detector_profile import kind_of
from benchmarks.detector_steps import Times, time_calls
from benchmarks.results import DETECTOR_COLUMNS, read_rows
from benchmarks.timing import Quantiles
from gn_det.layers import group_norm as layer

TINY = (
    *('--dtype', 'fp32', '--layout', 'nchw'),
    *('--height', '64', '--width', '64', '--regions', '8'),
    *('--least', '1', '--warm-up', '0', '--seconds', '0'),
)


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)


def run(tmp_path, *options: str) -> tuple[int, list[dict[str, str]]]:
    code = main([*TINY, *options, '--out', str(tmp_path)])
    (path,) = tmp_path.iterdir()
    assert path.name.startswith('detector_r50_fp32_nchw_cpu_pt')
    assert path.name.endswith('_64x64_partial.csv')
    return code, read_rows(path)


def test_a_short_run(tmp_path, capsys):
    variants = ('fused_gn_recompute', 'frozen_bn_2fc')
    code, rows = run(tmp_path, '--batch', '1', '--variant', *variants)
    assert code == 0
    assert tuple(rows[0]) == DETECTOR_COLUMNS
    # Inference has nothing to recompute for.
    assert [(row['variant'], row['mode']) for row in rows] == [
        ('fused_gn_recompute', 'train'),
        ('frozen_bn_2fc', 'train'),
        ('frozen_bn_2fc', 'infer'),
    ]
    for row in rows:
        assert row['status'] == 'ok'
        assert row['peak_mib'] == ''
        assert float(row['ms_p50']) >= float(row['host_ms_p50']) > 0
        assert float(row['images_per_s']) == pytest.approx(
            1e3 / float(row['ms_p50']), rel=1e-3
        )
        assert float(row['conv_ms']) > 0
        assert float(row['trunk_host_ms_p50']) < float(row['ms_p50'])
    # With boxes at the end the mask head has something to do.
    assert float(rows[2]['detections']) > 3
    said = capsys.readouterr().out
    assert 'time by kind' in said
    assert '0 failures' in said


def test_what_is_wrong_or_too_large_gets_no_time(tmp_path, monkeypatch, capsys):
    group_norm = layer.group_norm
    monkeypatch.setattr(layer, 'group_norm', lambda *a, **k: 1.01 * group_norm(*a, **k))
    monkeypatch.setattr(bench_detector.Detector, 'trunk', lambda self: None)

    def step(self):
        if len(self._batch.images) > 1:
            raise torch.OutOfMemoryError('no')

    monkeypatch.setattr(bench_detector.Detector, 'step', step)
    variants = ('fused_gn', 'frozen_bn_2fc')
    options = ('--batch', '1', '2', '4', '--mode', 'train', '--no-profile')
    code, rows = run(tmp_path, *options, '--variant', *variants)
    assert code == 1
    status = {(row['variant'], row['batch']): row['status'] for row in rows}
    time = {(row['variant'], row['batch']): row['ms_p50'] for row in rows}
    assert len(rows) == len(status) == 6
    for batch in '124':
        assert status['fused_gn', batch].startswith('refused: fp32 ')
        assert ' is off by ' in status['fused_gn', batch]
        assert time['fused_gn', batch] == ''
    assert status['frozen_bn_2fc', '1'] == 'ok'
    assert time['frozen_bn_2fc', '1']
    for batch in '24':
        assert status['frozen_bn_2fc', batch] == 'out of memory at batch 2'
        assert time['frozen_bn_2fc', batch] == ''
    said = capsys.readouterr().out
    assert 'FAILED fused_gn is refused: fp32 ' in said
    assert '1 failures' in said


def test_a_second_run_goes_on_where_the_first_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_detector.Detector, 'trunk', lambda self: None)
    monkeypatch.setattr(bench_detector.Detector, 'step', lambda self: None)
    options = ('--mode', 'train', '--no-profile', '--variant', 'frozen_bn_2fc')
    code, rows = run(tmp_path, *options, '--batch', '2', '--budget', '60')
    assert (code, len(rows)) == (0, 1)
    code, rows = run(tmp_path, *options, '--batch', '1', '2', '--budget', '-1')
    assert (code, len(rows)) == (3, 1)
    code, rows = run(tmp_path, *options, '--batch', '1', '2')
    assert (code, [row['batch'] for row in rows]) == (0, ['2', '1'])


def test_a_variant_that_breaks_costs_no_other_its_time(tmp_path, monkeypatch):
    def step(self):
        if self._model.roi_head.bbox_head.num_shared_convs:
            raise RuntimeError('broken\nin detail')

    monkeypatch.setattr(bench_detector.Detector, 'trunk', lambda self: None)
    monkeypatch.setattr(bench_detector.Detector, 'step', step)
    variants = ('frozen_bn_4conv1fc', 'frozen_bn_2fc')
    options = ('--batch', '1', '--mode', 'train', '--no-profile')
    code, rows = run(tmp_path, *options, '--variant', *variants)
    assert code == 1
    assert [row['status'] for row in rows] == [
        'failed: RuntimeError: broken',
        'ok',
    ]


def test_errors_are_relative_and_what_is_missing_is_wrong():
    one, two = torch.ones(4), 2 * torch.ones(4)
    reference = Step({'loss': 2.0}, {'a': two, 'b': one, 'zero': torch.zeros(4)})
    losses, gradients = Step({'loss': 2.2}, {'a': 2.1 * one}).errors(reference)
    assert losses == {'loss': pytest.approx(0.1)}
    assert gradients['a'] == pytest.approx(0.05)
    assert gradients['b'] == gradients['zero'] == float('inf')
    nan = Step({'loss': 2.0}, {'a': two, 'b': one * float('nan'), 'zero': two * 0})
    assert nan.errors(reference)[1] == {'a': 0, 'b': float('inf'), 'zero': 0}


def test_every_image_has_regions_enough_of_either_kind():
    from mmdet.structures.bbox import bbox_overlaps

    batch = make_batch(2, 800, 1333, 'cpu')
    assert batch.images.shape == (2, 3, *padded(800, 1333)) == (2, 3, 800, 1344)
    assert bool((batch.images[..., 1333:] == 0).all())
    for sample, found in zip(batch.samples, batch.proposals, strict=True):
        overlaps = bbox_overlaps(found.bboxes, sample.gt_instances.bboxes)
        best = overlaps.max(1).values
        # The sampler of the configs wants 128 positive and 384 negative regions.
        assert int((best >= 0.5).sum()) >= 128
        assert int((best < 0.5).sum()) >= 384
        assert (sample.gt_instances.masks.areas > 0).all()
    again = make_batch(2, 800, 1333, 'cpu')
    assert torch.equal(again.images, batch.images)
    assert torch.equal(again.proposals[1].bboxes, batch.proposals[1].bboxes)


@pytest.mark.parametrize(
    ('name', 'kind'),
    [
        ('gn_bwd_dx_nhwc_kernel', 'norm'),
        ('void at::native::(anonymous namespace)::RowwiseMomentsCUDAKernel', 'norm'),
        ('GroupNormKernelImplInternal(...)::{lambda(float, float)#1}', 'norm'),
        ('void at::native::batch_norm_transform_input_kernel<...>', 'norm'),
        ('void cudnn::ops::nchwToNhwcKernel<__nv_bfloat16>', 'cast_layout'),
        ('at::native::direct_copy_kernel_cuda(at::TensorIteratorBase&)', 'cast_layout'),
        ('at::native::bfloat16_copy_kernel_cuda', 'cast_layout'),
        ('sm90_xmma_fprop_implicit_gemm_bf16bf16_nhwc', 'conv'),
        ('cudnn::cnn::wgrad2d_grouped_direct_kernel', 'conv'),
        ('vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>', 'add_relu'),
        ('launch_clamp_scalar(...)', 'add_relu'),
        ('multi_tensor_apply_kernel<..., BinaryOpListAlphaFunctor, add>', 'other'),
        ('nms_kernel_impl', 'other'),
    ],
)
def test_kernels_are_told_apart(name, kind):
    assert kind_of(name) == kind


def test_on_a_gpu_kernels_alone_count(monkeypatch):
    def event(key, device, us, annotation=False):
        return SimpleNamespace(
            key=key,
            device_type=device,
            self_device_time_total=us,
            self_cpu_time_total=1e6,
            is_user_annotation=annotation,
        )

    events = [
        event('gn_fwd_kernel', DeviceType.CUDA, 2000),
        event('aten::native_group_norm', DeviceType.CPU, 2000),
        event('Optimizer.step#SGD.step', DeviceType.CUDA, 5000, annotation=True),
        event('sm90_xmma_fprop', DeviceType.CUDA, 500),
    ]

    class Profile(contextlib.nullcontext):
        def key_averages(self):
            return events

    profiler = Profile()
    profiler.enter_result = profiler
    monkeypatch.setattr(detector_profile, 'profile', lambda activities: profiler)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'synchronize', lambda: None)
    found = detector_profile.time_by_kind(lambda: None)
    assert found == dict(norm=2, add_relu=0, cast_layout=0, conv=0.5, other=0)


def test_the_clock_takes_samples_enough():
    calls = []
    options = dict(seconds=0, least=4, most=6, warm_up=2)
    times = time_calls(lambda: calls.append(0), **options)
    assert (times.samples, len(calls)) == (4, 6)
    options['seconds'] = 60
    assert time_calls(lambda: None, **options).samples == 6
    assert isinstance(times, Times)
    assert isinstance(times.host, Quantiles)


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ('', ''),
        ('--batch 8 4 2 1 --layout nhwc --dtype bf16 --seconds 9', ''),
        ('--batch 2', '_partial'),
        ('--variant fused_gn', '_partial'),
        ('--no-profile', '_partial'),
        ('--height 640', '_640x1333_partial'),
        ('--regions 64', '_800x1333_partial'),
    ],
)
def test_only_a_whole_run_gets_the_plain_name(monkeypatch, options, expected):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert suffix(parse_args(options.split())) == expected
