"""A place that cannot be written to is named before anything is computed."""

from __future__ import annotations

import pytest

from gn_det.workbench.errors import UserError
from gn_det.workbench.runtime.outputs import (
    check_file,
    check_folder,
    make_folder,
    make_folder_of,
)


def test_places_that_can_be_written(tmp_path):
    folder = tmp_path / 'a' / 'b'
    check_folder(folder, '--work-dir')
    check_file(folder / 'x.pkl', '--out')
    assert list(tmp_path.iterdir()) == []
    make_folder_of(folder / 'x.pkl', '--out')
    make_folder(folder, '--work-dir')
    assert folder.is_dir()
    check_folder(folder, '--work-dir')
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize('look', [make_folder, check_folder])
def test_folders_that_cannot_be_written(tmp_path, look):
    file = tmp_path / 'file'
    file.touch()
    with pytest.raises(
        UserError, match=r'^--work-dir .*/file is a file; name a folder'
    ):
        look(file, '--work-dir')
    with pytest.raises(UserError, match='cannot be written to: Not a directory'):
        look(file / 'under', '--work-dir')
    with pytest.raises(UserError, match='cannot be written to: File name too long'):
        look(tmp_path / ('a' * 300), '--work-dir')
    # Nobody, not even the superuser, makes a folder there.
    with pytest.raises(UserError, match=r'^--work-dir /proc/nowhere cannot be written'):
        look('/proc/nowhere', '--work-dir')


@pytest.mark.parametrize('look', [make_folder_of, check_file])
def test_files_that_cannot_be_written(tmp_path, look):
    with pytest.raises(UserError, match=r'^--out .* is a folder; name a file'):
        look(tmp_path, '--out')
    with pytest.raises(UserError, match=r'^--out /proc/x cannot be written to'):
        look('/proc/x/p.pkl', '--out')
