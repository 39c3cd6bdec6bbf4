"""Two CPU processes through `tools/dist_train.sh` and `tools/dist_test.sh`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gn_det.workbench.report.run_log import read_run_log, read_test_scores
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


@pytest.fixture
def machines():
    """Two network namespaces with a cable between them, by their names."""
    names = [f'gn-{os.getpid()}-{number}' for number in range(2)]
    commands = [
        *(f'ip netns add {name}' for name in names),
        f'ip -n {names[0]} link add gn0 type veth peer name gn0 netns {names[1]}',
    ]
    for number, name in enumerate(names):
        commands += [
            f'ip -n {name} address add 10.77.0.{number + 1}/24 dev gn0',
            f'ip -n {name} link set gn0 up',
            f'ip -n {name} link set lo up',
        ]
    try:
        for command in commands:
            try:
                subprocess.run(command.split(), check=True, capture_output=True)
            except (OSError, subprocess.CalledProcessError) as error:
                pytest.skip(f'needs network namespaces: {error}')
        yield names
    finally:
        if shutil.which('ip'):
            for name in names:
                subprocess.run(['ip', 'netns', 'delete', name], capture_output=True)


def test_two_machines_train(machines, small_options, tmp_path):
    options = (*small_options, 'train_cfg.max_epochs=1', 'train_cfg.val_interval=9')
    where = dict(
        NNODES='2', MASTER_ADDR='10.77.0.1', PORT='29500', PYTHON=sys.executable,
        GLOO_SOCKET_IFNAME='gn0',
    )  # fmt: skip
    with ThreadPoolExecutor(2) as pool:
        done = [
            pool.submit(
                run, 'ip', 'netns', 'exec', name, 'tools/dist_train.sh', CONFIG, 1,
                '--work-dir', tmp_path, *options, NODE_RANK=str(number), **where,
            )
            for number, name in enumerate(machines)
        ]  # fmt: skip
    for each in done:
        assert_success(each.result())
    assert [r['iter'] for r in read_run_log(tmp_path).train] == [1, 2]


def test_a_signal_to_the_script_is_one_to_the_training(small_options, tmp_path):
    process = subprocess.Popen(
        ['tools/dist_train.sh', CONFIG, '2', '--work-dir', str(tmp_path),
         *small_options, 'train_cfg.max_epochs=200', 'train_cfg.val_interval=200'],
        cwd=REPOSITORY, env=environment(PORT=free_port(), PYTHON=sys.executable),
        text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = []
    for line in process.stdout:
        said.append(line)
        if 'Epoch(train)' in line:
            process.terminate()
            break
    said += process.stdout
    assert process.wait() == 143, ''.join(said)[-3000:]
    assert 'Stopped by SIGTERM after iteration' in ''.join(said)
    assert (tmp_path / 'interrupted.pth').is_file()
    assert (tmp_path / 'report.html').is_file()


@pytest.mark.parametrize(
    'script', ['dist_train', 'dist_test', 'slurm_train', 'slurm_test']
)
def test_too_few_words_print_the_usage(script):
    done = run(f'tools/{script}.sh')
    assert done.returncode == 2
    assert 'usage: ' in done.stderr
