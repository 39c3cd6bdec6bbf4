"""Files are whole or as they were before, and what the dead left is removed."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from gn_det.workbench.atomic_files import (
    finish,
    partial_file,
    partial_folder,
    remove_partial_files,
    replacing,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_takes_the_name(tmp_path):
    path = tmp_path / 'made' / 'scores.json'
    for text in ('before', 'after'):
        with replacing(path) as partial:
            assert partial.parent == path.parent
            partial.write_text(text)
        assert path.read_text() == text
    assert names(path.parent) == ['scores.json']
    # As of any new file, not the closed mode of a temporary one.
    (tmp_path / 'new').touch()
    assert path.stat().st_mode == (tmp_path / 'new').stat().st_mode


def test_what_a_link_leads_to_is_replaced(tmp_path):
    (tmp_path / 'real').write_text('before')
    (tmp_path / 'link').symlink_to('real')
    with replacing(tmp_path / 'link') as partial:
        partial.write_text('after')
    assert (tmp_path / 'link').is_symlink()
    assert (tmp_path / 'real').read_text() == 'after'


def test_what_is_no_file_is_written_to(tmp_path):
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    with replacing(pipe) as partial:
        partial.write_text('said')
    assert os.read(reader, 10) == b'said'
    os.close(reader)
    assert pipe.is_fifo()


def replace(path, then):
    with replacing(path) as partial:
        partial.write_bytes(b'after')
        then()


@pytest.mark.parametrize('step', ['write', 'fsync', 'replace'])
def test_failure_keeps_the_file_before_it(tmp_path, monkeypatch, step):
    path = tmp_path / 'epoch_1.pth'
    path.write_bytes(b'before')

    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, step, full)
    with pytest.raises(OSError, match='No space left'):
        replace(path, full if step == 'write' else bool)
    assert path.read_bytes() == b'before'
    assert names(tmp_path) == ['epoch_1.pth']


def test_a_name_that_depends_on_the_content(tmp_path):
    with partial_file(tmp_path / 'weights') as partial:
        partial.write_bytes(b'content')
        finish(partial, tmp_path / 'weights-ed7002b4')
    with partial_file(tmp_path / 'weights'):
        pass
    with partial_folder(tmp_path / 'set') as partial:
        (partial / 'image').touch()
        partial.rename(tmp_path / 'set')
    with partial_folder(tmp_path / 'other') as partial:
        (partial / 'image').touch()
    assert names(tmp_path) == ['set', 'weights-ed7002b4']


WRITER = """
import sys
from gn_det.workbench.atomic_files import partial_folder, replacing
with replacing(sys.argv[1]) as partial, partial_folder(sys.argv[1]) as folder:
    print(partial.name, folder.name, flush=True)
    sys.stdin.read()
"""


def test_only_what_the_dead_left_is_removed(tmp_path):
    (tmp_path / 'plan.partial-x').touch()
    (tmp_path / 'epoch_1.pth.partial-4711').touch()
    writers = [
        subprocess.Popen(
            [sys.executable, '-c', WRITER, tmp_path / name],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for name in ('dead', 'living')
    ]  # fmt: skip
    dead, living = (set(writer.stdout.readline().split()) for writer in writers)
    writers[0].kill()
    writers[0].wait()
    assert dead | living < set(names(tmp_path))
    remove_partial_files(tmp_path)
    assert names(tmp_path) == sorted([*living, 'plan.partial-x'])
    writers[1].communicate('')
    assert names(tmp_path) == ['living', 'plan.partial-x']
