"""A wrong argument of a benchmark is named before anything is measured."""

from __future__ import annotations

import pytest

from benchmarks import bench_detector, bench_host, memory_detector


@pytest.mark.parametrize(
    ('benchmark', 'words', 'said'),
    [
        (memory_detector, '--batch 0', '--batch: expected at least 1, got 0'),
        (memory_detector, '--height -5', '--height: expected at least 1, got -5'),
        (bench_detector, '--batch 1 0', '--batch: expected at least 1, got 0'),
        (bench_detector, '--least 0', '--least: expected at least 1, got 0'),
        (bench_detector, '--width x', "--width: invalid whole number value: 'x'"),
        (bench_host, '--repeats 0', '--repeats: expected at least 1, got 0'),
    ],
)
def test_counts_and_sizes(benchmark, words, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(words.split())
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('benchmark', [memory_detector, bench_detector, bench_host])
def test_a_file_where_the_folder_should_be(benchmark, tmp_path, capsys):
    path = tmp_path / 'file'
    path.write_bytes(b'mine')
    with pytest.raises(SystemExit) as stopped:
        benchmark.main(['--out', str(path)])
    assert stopped.value.code == 2
    assert f'--out: {path} cannot be a folder' in capsys.readouterr().err
    assert path.read_bytes() == b'mine'
