"""`gn-det demo`."""

from __future__ import annotations

import json
import shutil

from tests.running import CONFIG, assert_success, call, run_tool, user_error
from tests.workbench.inference.weights import checkpoint  # noqa: F401, used as a fixture


def test_folder_with_a_bad_file(checkpoint, shapes, tmp_path):  # noqa: F811
    source, out = tmp_path / 'in', tmp_path / 'out'
    shutil.copytree(shapes / 'val', source)
    (source / 'notes.txt').write_text('not an image\n')
    done = run_tool(
        'image_demo.py', source, CONFIG, checkpoint, '--out-dir', out,
        '--batch-size', 2, '--score-thr', 0.0, '--device', 'cpu',
        '--cfg-options', 'model.test_cfg.rcnn.max_per_img=5',
    )  # fmt: skip
    assert_success(done)
    said = done.stdout + done.stderr
    assert f'skipped {source}/notes.txt' in said
    assert f'20 objects in 4 files, 1 skipped; see {out}' in said
    assert len(list((out / 'painted').iterdir())) == 4
    assert len(json.loads((out / 'predictions.json').read_text())['images']) == 4


def test_nothing_readable(checkpoint, tmp_path):  # noqa: F811
    words = tmp_path / 'words.jpg'
    words.write_text('not an image\n')
    out = tmp_path / 'out'
    done = call('demo', words, CONFIG, checkpoint, '--out-dir', out)
    assert 'could be read as an image' in user_error(done)
    assert not out.exists()
