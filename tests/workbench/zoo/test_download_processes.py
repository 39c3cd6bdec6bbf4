"""Downloads of several processes, and of processes that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import pytest

from gn_det.workbench.zoo.download import download
from tests.running import REPOSITORY, assert_success, environment, run_tool, user_error
from tests.workbench.zoo.server import hashed_name

CONTENT = os.urandom(600_000)
NAME = hashed_name(CONTENT)
# Forked, a process needs no second import of torch.
FORK = multiprocessing.get_context('fork')


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    for name in ('GN_DET_OFFLINE', 'GN_DET_MIRRORS'):
        monkeypatch.delenv(name, raising=False)


def start(url, cache):
    process = FORK.Process(target=download, args=(url, cache), daemon=True)
    process.start()
    return process


def wait_for_part(cache, size):
    part = cache / f'{NAME}.part'
    deadline = time.monotonic() + 60
    while not part.is_file() or part.stat().st_size < size:
        assert time.monotonic() < deadline, 'the download did not get that far'
        time.sleep(0.01)


def test_processes_at_once_download_once(server, cache):
    url = server.add(f'/{NAME}', CONTENT, pause_s=0.01)
    processes = [start(url, cache) for _ in range(4)]
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 4
    assert server.count(f'/{NAME}') == 1
    assert (cache / NAME).read_bytes() == CONTENT
    assert os.listdir(cache) == [NAME]


def test_killed_process_leaves_what_the_next_goes_on_from(server, cache):
    url = server.add(f'/{NAME}', CONTENT, pause_s=0.05)
    process = start(url, cache)
    wait_for_part(cache, 100_000)
    process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert not (cache / NAME).exists()
    server.add(f'/{NAME}', CONTENT)
    assert download(url, cache).read_bytes() == CONTENT
    start_of_second = int(server.requests[1].headers['Range'][6:-1])
    assert 100_000 <= start_of_second < len(CONTENT)
    assert os.listdir(cache) == [NAME]


def test_one_waiting_takes_over_from_a_killed_one(server, cache):
    url = server.add(f'/{NAME}', CONTENT, pause_s=0.05)
    first = start(url, cache)
    wait_for_part(cache, 50_000)
    second = start(url, cache)
    time.sleep(0.2)
    assert server.count(f'/{NAME}') == 1
    first.kill()
    first.join(10)
    second.join(30)
    assert second.exitcode == 0
    assert (cache / NAME).read_bytes() == CONTENT
    assert server.requests[1].headers['Range']


def test_ctrl_c_leaves_what_the_next_goes_on_from(server, cache):
    url = server.add(f'/{NAME}', CONTENT, pause_s=0.2)
    tool = subprocess.Popen(
        [sys.executable, 'tools/zoo.py', 'download', url, '--dest', str(cache)],
        cwd=REPOSITORY,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell ignore SIGINT, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        wait_for_part(cache, 100_000)
        tool.send_signal(signal.SIGINT)
        out, err = tool.communicate(timeout=60)
    finally:
        tool.kill()
    assert tool.returncode == 130, err
    assert err == 'interrupted\n'
    assert out == ''
    assert not (cache / NAME).exists()
    server.add(f'/{NAME}', CONTENT)
    done = run_tool('zoo.py', 'download', url, '--dest', cache)
    assert_success(done)
    assert done.stdout == f'{cache / NAME}\n'
    (line,) = done.stderr.splitlines()
    assert 'only 32 bits of its sha256' in line
    assert server.requests[1].headers['Range']
    assert (cache / NAME).read_bytes() == CONTENT


def test_tool_answers_a_failure_with_one_line(server, cache):
    wrong = server.add(f'/{NAME}', CONTENT[:-1])
    done = run_tool('zoo.py', 'download', wrong, '--dest', cache, '--timeout', '5')
    assert f'{server.host}: sent a wrong file' in user_error(done)
    assert os.listdir(cache) == []
