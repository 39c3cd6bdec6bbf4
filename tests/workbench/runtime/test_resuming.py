"""Which checkpoint a run goes on from."""

from __future__ import annotations

import os
import pickle
import random

import pytest
import torch

from gn_det.workbench.runtime.resuming import (
    RunNote,
    find_resume_checkpoint,
)


def save(path, iteration, run='', **more):
    content = dict(
        state_dict=dict(w=torch.arange(6.0)),
        meta=dict(iter=iteration, epoch=iteration // 10, run=run, seed=0),
        optimizer={},
    )
    torch.save(content | more, path)
    return str(path)


def test_nothing_there(tmp_path):
    assert find_resume_checkpoint(tmp_path) is None
    assert find_resume_checkpoint(tmp_path / 'absent') is None


def test_the_counters_decide_and_no_name_date_or_note(tmp_path):
    newest = save(tmp_path / 'interrupted.pth', 25)
    save(tmp_path / 'epoch_9.pth', 20)
    os.utime(newest, (1e9, 1e9))
    (tmp_path / 'last_checkpoint').write_text('\0\0/elsewhere/epoch_30.pth')
    assert find_resume_checkpoint(tmp_path) == newest


def test_of_two_at_one_step_the_later(tmp_path):
    for age, name in enumerate(['epoch_1.pth', 'iter_10.pth']):
        os.utime(save(tmp_path / name, 10), (1e9 - age, 1e9 - age))
    assert find_resume_checkpoint(tmp_path) == str(tmp_path / 'epoch_1.pth')


def test_an_earlier_run_in_the_folder_is_left_alone(tmp_path):
    save(tmp_path / 'epoch_9.pth', 90, run='old')
    mine = save(tmp_path / 'epoch_1.pth', 10, run='new')
    RunNote('new').write(tmp_path)
    assert find_resume_checkpoint(tmp_path) == mine
    os.remove(mine)
    assert find_resume_checkpoint(tmp_path) is None


def test_what_cannot_be_gone_on_from(tmp_path):
    whole = save(tmp_path / 'epoch_1.pth', 10)
    save(tmp_path / 'counters.pth', 99, meta=dict(iter='many', epoch=9))
    torch.save(dict(state_dict={}, meta=dict(iter=99, epoch=9)), tmp_path / 'best.pth')
    torch.save([1, 2], tmp_path / 'list.pth')
    (tmp_path / 'evil.pth').write_bytes(pickle.dumps(pytest.fail))
    (tmp_path / 'empty.pth').touch()
    assert find_resume_checkpoint(tmp_path) == whole


def test_damage_of_any_byte_is_passed_over(tmp_path):
    earlier = save(tmp_path / 'epoch_1.pth', 10)
    later = tmp_path / 'epoch_2.pth'
    content = (tmp_path / save(later, 20)).read_bytes()
    places = random.Random(0)
    picked = set()
    for _ in range(100):
        damaged = bytearray(content)
        damaged[places.randrange(len(content))] ^= 1 << places.randrange(8)
        later.write_bytes(damaged)
        picked.add(find_resume_checkpoint(tmp_path))
        if find_resume_checkpoint(tmp_path) == str(later):
            # A byte that says nothing: what is read is what was written.
            state = torch.load(later)['state_dict']
            assert torch.equal(state['w'], torch.arange(6.0))
    assert picked == {earlier, str(later)}


@pytest.mark.parametrize('text', ['', '{}', '[]', '\0', '{"run": 1, "validated": "x"}'])
def test_a_damaged_note_is_none(tmp_path, text):
    (tmp_path / 'run.json').write_text(text)
    assert RunNote.read(tmp_path) is None
    assert RunNote.read(tmp_path / 'absent') is None
