"""Two CPU processes through `tools/dist_train.sh` and `tools/dist_test.sh`."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

from gn_det.evaluation.run_log import read_test_figures
from tests.tools.conftest import CONFIG, environment

HOOK = """
import hashlib, json, pathlib
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
"""


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return str(probe.getsockname()[1])


def launch(repository, *command: object, **extra: str) -> subprocess.CompletedProcess:
    done = subprocess.run(
        list(map(str, command)),
        cwd=repository,
        env=environment(PORT=free_port(), PYTHON=sys.executable, **extra),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


def test_ranks_agree_after_training_and_on_the_figures(
    repository, small_options, tmp_path, monkeypatch
):
    monkeypatch.chdir(repository)
    (tmp_path / 'write_weights.py').write_text(HOOK)
    config = tmp_path / 'config.py'
    config.write_text(
        f"_base_ = '{repository / CONFIG}'\n"
        "custom_imports = dict(imports=['gn_det', 'gn_det.evaluation',"
        " 'write_weights'])\n"
        "custom_hooks = [dict(type='WriteWeights')]\n"
    )
    options = (*small_options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
    path = f'{tmp_path}:{environment()["PYTHONPATH"]}'
    launch(
        repository, 'tools/dist_train.sh', config, 2, '--work-dir', tmp_path, *options,
        PYTHONPATH=path,
    )  # fmt: skip
    ranks = [json.loads((tmp_path / f'rank{i}.json').read_text()) for i in range(2)]
    assert ranks[0] == ranks[1]
    assert ranks[0]['iter'] == 2

    # The same checkpoint gives the same figures with one process and with two.
    checkpoint = tmp_path / 'epoch_1.pth'
    figures = []
    for processes in (1, 2):
        work_dir = tmp_path / f'test{processes}'
        launch(
            repository, 'tools/dist_test.sh', CONFIG, checkpoint, processes,
            '--work-dir', work_dir, *small_options,
        )  # fmt: skip
        found = read_test_figures(work_dir)
        figures.append({k: v for k, v in found.items() if 'mAP' in k})
    assert figures[0] == figures[1]
    assert figures[0]


def test_too_few_words_print_the_usage(repository):
    for script in ('dist_train', 'dist_test', 'slurm_train', 'slurm_test'):
        done = subprocess.run(
            [f'tools/{script}.sh'],
            cwd=repository,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert 'usage: ' in done.stderr
