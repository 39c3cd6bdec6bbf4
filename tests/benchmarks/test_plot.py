"""Figures from a synthetic CSV: they exist, are not blank, and show its numbers."""

import matplotlib.image
import numpy as np
import pytest

from benchmarks import plot
from benchmarks.cases import network_cases
from benchmarks.results import (
    DETECTOR_COLUMNS,
    HOST_COLUMNS,
    MEMORY_COLUMNS,
    SPEED_COLUMNS,
    write_rows,
)

TIMES = {'copy': 1.0, 'gn_det': 1.5, 'torch': 9.0}


def speed_rows() -> list[dict]:
    return [
        {
            **dict.fromkeys(SPEED_COLUMNS, 'none'),
            **dict(dir=direction, impl=impl, dtype='bf16', layout='nhwc', cache='cold'),
            **dict(N=case.N, C=case.C, H=case.H, W=case.W, G=case.G),
            **dict(relu=int(case.relu), residual=int(case.residual)),
            **dict(count_r50=case.count_r50, count_r101=case.count_r101),
            'ms_p50': ms,
            'frac_of_copy': 1 / ms,
        }
        for case in network_cases('bf16', 'nhwc')
        for direction in ('fwd', 'bwd')
        for impl, ms in TIMES.items()
    ]


def host_rows() -> list[dict]:
    return [
        {
            **dict.fromkeys(HOST_COLUMNS, 'none'),
            **dict(dir=direction, impl=impl, layout='nchw', relu=1, residual=0),
            **dict(regime='split', us_p50=us),
        }
        for direction in ('fwd', 'bwd')
        for impl, us in (('gn_det', 12.0), ('torch', 10.0))
    ]


@pytest.fixture
def csv_files(tmp_path):
    speed = tmp_path / 'group-norm_bf16_nhwc_h200_pt215_tr39.csv'
    host = tmp_path / 'host-cost_up-to-launch_cpu_pt215_tr39.csv'
    write_rows(speed, SPEED_COLUMNS, speed_rows())
    write_rows(host, HOST_COLUMNS, host_rows())
    write_rows(speed.with_stem(speed.stem + '_quick'), SPEED_COLUMNS, speed_rows())
    return tmp_path


def test_figures_of_a_folder(csv_files, tmp_path, capsys):
    paths = plot.find(csv_files)
    assert [path.name.split('_')[0] for path in paths] == ['group-norm', 'host-cost']
    out = tmp_path / 'figures'
    assert plot.main([*map(str, paths), '--out', str(out)]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == [
        'group-norm_bf16_nhwc_h200_pt215_tr39_shapes.png',
        'group-norm_bf16_nhwc_h200_pt215_tr39_totals.png',
        'host-cost_up-to-launch_cpu_pt215_tr39.png',
    ]
    for name in names:
        picture = matplotlib.image.imread(out / name)
        assert min(picture.shape[:2]) > 100
        blue = (picture[..., 2] - picture[..., 0]) > 0.3
        assert np.mean(blue) > 1e-3, f'{name} shows no bar of gn_det'
    assert capsys.readouterr().out.count('wrote') == 3


def test_bars_have_the_heights_of_the_csv(csv_files):
    path = plot.find(csv_files)[0]
    rows = plot.read_rows(path)
    forward = plot.shapes_figure(rows).axes[0]
    bars = {c.get_label(): [b.get_height() for b in c] for c in forward.containers}
    cases = len(network_cases('bf16', 'nhwc'))
    assert bars == {'gn_det': [1.5] * cases, 'torch': [9.0] * cases}
    (totals,) = plot.totals_figure(rows).axes
    heights = {c.get_label(): [b.get_height() for b in c] for c in totals.containers}
    assert heights['gn_det'] == pytest.approx([103.5, 103.5, 180, 180])
    assert heights['torch'] == pytest.approx([621, 621, 1080, 1080])


def test_totals_of_part_of_a_network_are_not_drawn():
    rows = [row for row in speed_rows() if row['C'] != 64]
    assert plot.totals_figure(rows) is None


def test_no_csv(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(plot, 'find', list)
    assert plot.main([]) == 2
    assert 'No CSV' in capsys.readouterr().err
    assert plot.main([str(tmp_path / 'absent.csv')]) == 2
    assert 'absent.csv does not exist' in capsys.readouterr().err


def test_a_csv_of_something_else(tmp_path, capsys):
    path = tmp_path / 'group-norm_other.csv'
    path.write_text('a,b\n1,2\n')
    assert plot.main([str(path), '--out', str(tmp_path)]) == 2
    assert 'is not a CSV of these benchmarks' in capsys.readouterr().err


def memory_rows() -> list[dict]:
    return [
        {
            **dict.fromkeys(MEMORY_COLUMNS, '512'),
            **dict(model='r50', variant=variant, dtype=dtype, frozen_stages='-1'),
            'total_mib': '4096',
        }
        for dtype in ('fp32', 'bf16')
        for variant in ('fused_gn', 'frozen_bn_4conv1fc')
    ]


def detector_rows() -> list[dict]:
    return [
        {
            **dict.fromkeys(DETECTOR_COLUMNS, ''),
            **dict(variant=variant, mode=mode, batch=batch),
            # What did not fit into memory has no figures.
            **dict(images_per_s='' if batch == 8 else 10 * batch, peak_mib=2048),
        }
        for variant in ('fused_gn', 'frozen_bn_4conv1fc')
        for mode in ('train', 'infer')
        for batch in (1, 8)
    ]


def test_figures_of_detectors(tmp_path):
    memory = tmp_path / 'detector-memory_pt215.csv'
    speed = tmp_path / 'detector_r50_bf16_nhwc_h200_pt215_tr39.csv'
    partial = tmp_path / 'detector_r50_bf16_nhwc_cpu_pt215_tr39_64x96_partial.csv'
    write_rows(memory, MEMORY_COLUMNS, memory_rows())
    write_rows(speed, DETECTOR_COLUMNS, detector_rows())
    write_rows(partial, DETECTOR_COLUMNS, detector_rows())
    assert plot.find(tmp_path) == [memory, speed]
    assert plot.main([str(memory), str(speed), '--out', str(tmp_path)]) == 0
    assert sorted(tmp_path.glob('*.png')) == [
        memory.with_suffix('.png'),
        speed.with_suffix('.png'),
    ]
    axes = plot.memory_figure(plot.read_rows(memory)).axes
    assert len(axes) == 2
    for panel in axes:
        # Five parts of half a GiB end to end, for each of two variants.
        ends = [bar.get_x() + bar.get_width() for bar in panel.containers[-1]]
        assert ends == [2.5, 2.5]
        assert panel.lines[0].get_xdata()[0] == 3
    train, infer, peak = plot.detector_figure(plot.read_rows(speed)).axes
    for panel, heights in ((train, [10]), (infer, [10]), (peak, [2, 2])):
        bars = {c.get_label(): [b.get_height() for b in c] for c in panel.containers}
        assert bars == {'fused_gn': heights, 'frozen_bn_4conv1fc': heights}


def test_detectors_without_a_single_time(tmp_path, capsys):
    path = tmp_path / 'detector_r50_bf16_nhwc_h200_pt215_tr39.csv'
    rows = [row | {'images_per_s': '', 'peak_mib': ''} for row in detector_rows()]
    write_rows(path, DETECTOR_COLUMNS, rows)
    assert plot.main([str(path), '--out', str(tmp_path)]) == 2
    assert 'no row has a time' in capsys.readouterr().err
