"""What `import gn_det` does to a process, and what it leaves alone."""

from __future__ import annotations

import json
import sys

from tests.running import assert_success, run

REPORT = """
import json, sys
from mmengine.runner.checkpoint import CheckpointLoader
from torch.serialization import get_safe_globals

before = dict(CheckpointLoader._schemes), list(get_safe_globals())
import gn_det

print(json.dumps(dict(
    schemes=CheckpointLoader._schemes == before[0],
    safe_globals=get_safe_globals() == before[1],
    imported=sorted(name for name in sys.modules if name.startswith('gn_det.')),
)))
"""


def test_the_plugin_leaves_the_loader_of_checkpoints_as_it_was():
    done = run(sys.executable, '-c', REPORT)
    assert_success(done)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found['schemes']
    assert found['safe_globals']
    assert [name for name in found['imported'] if 'workbench' in name] == []
