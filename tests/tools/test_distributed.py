"""Two CPU processes through `tools/dist_train.sh` and `tools/dist_test.sh`."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from gn_det.workbench.report.run_log import read_test_scores
from tests.running import CONFIG, REPOSITORY, assert_success, environment, run

# What a rank ends with: the weights, and the threads alive when the interpreter stops.
HOOK = """
import atexit, contextlib, hashlib, json, os, pathlib
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS


@HOOKS.register_module()
class WriteWeights(Hook):
    def after_train(self, runner):
        assert is_model_wrapper(runner.model)
        digest = hashlib.sha256()
        for tensor in runner.model.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        path = pathlib.Path(runner.work_dir) / f'rank{get_rank()}.json'
        path.write_text(json.dumps(dict(digest=digest.hexdigest(), iter=runner.iter)))


def write_threads():
    folder = pathlib.Path(os.environ['THREADS_AT_EXIT'])
    names = []
    for task in pathlib.Path('/proc/self/task').iterdir():
        # A thread may end meanwhile.
        with contextlib.suppress(OSError):
            names.append((task / 'comm').read_text().strip())
    (folder / f'threads{os.environ["RANK"]}.json').write_text(json.dumps(names))


atexit.register(write_threads)
"""


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def launch(script: str, *arguments: object, **extra: str) -> None:
    extra = dict(PORT=free_port(), PYTHON=sys.executable, **extra)
    assert_success(run(f'tools/{script}', *arguments, **extra))


def gloo_threads(folder: Path) -> list[str]:
    """The process group's threads that two ranks still had when they stopped."""
    files = [folder / f'threads{rank}.json' for rank in range(2)]
    names = [name for file in files for name in json.loads(file.read_text())]
    return [name for name in names if 'gloo' in name]


def test_ranks_agree_after_training_and_on_the_figures(small_options, tmp_path):
    (tmp_path / 'write_weights.py').write_text(HOOK)
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{REPOSITORY / CONFIG}'\n"
        "custom_imports = dict(imports=['gn_det', 'gn_det.workbench.evaluation',"
        " 'write_weights'])\n"
        "custom_hooks = [dict(type='WriteWeights')]\n"
    )
    options = (*small_options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
    path = f'{tmp_path}:{environment()["PYTHONPATH"]}'
    launch(
        'dist_train.sh', config, 2, '--work-dir', tmp_path, *options,
        PYTHONPATH=path, THREADS_AT_EXIT=str(tmp_path),
    )  # fmt: skip
    # A thread of the group that lets go of a tensor while the interpreter is torn down
    # aborts the process: the run had done all its work and still ended in failure.
    assert gloo_threads(tmp_path) == []
    ranks = [json.loads((tmp_path / f'rank{i}.json').read_text()) for i in range(2)]
    assert ranks[0] == ranks[1]
    assert ranks[0]['iter'] == 2

    # The same checkpoint gives the same figures with one process and with two.
    checkpoint = tmp_path / 'epoch_1.pth'
    figures = []
    for processes in (1, 2):
        work_dir = tmp_path / f'test{processes}'
        threads = work_dir / 'threads'
        threads.mkdir(parents=True)
        launch(
            'dist_test.sh', config, checkpoint, processes,
            '--work-dir', work_dir, *small_options,
            PYTHONPATH=path, THREADS_AT_EXIT=str(threads),
        )  # fmt: skip
        found = read_test_scores(work_dir)
        if processes == 2:
            assert gloo_threads(threads) == []
        figures.append({k: v for k, v in found.items() if 'mAP' in k})
    assert figures[0] == figures[1]
    assert figures[0]


@pytest.mark.parametrize(
    'script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test']
)
def test_too_few_words_print_the_usage(script):
    done = run(f'tools/{script}.sh')
    assert done.returncode == 2
    assert 'usage: ' in done.stderr
