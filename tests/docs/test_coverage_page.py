"""docs/coverage.md says what its files say, and they what is counted now.

The models of the hosts are compared in tests/fusion/test_hosts.py.
"""

import pytest
from mmengine.logging import MMLogger

from benchmarks import coverage_page
from benchmarks.fusion_coverage import config_row
from benchmarks.operator_coverage import leaf_configs, surroundings
from benchmarks.results import fusion_path, read_rows
from tests.fusion.hosts import MODELS

CONFIGS = read_rows(fusion_path('configs'))
EXAMPLES = {
    coverage_page.folder_of(rows[0]): rows[0] for rows in coverage_page.groups(CONFIGS)
}


@pytest.fixture(scope='module', autouse=True)
def quiet_surroundings():
    MMLogger.get_current_instance().setLevel('ERROR')
    with surroundings():
        yield


def test_the_page_has_what_the_files_say():
    assert coverage_page.main(['--check']) == 0


def test_the_files_name_every_model_once():
    names = [row['model'] for row in read_rows(fusion_path('hosts'))]
    assert sorted(names) == sorted(MODELS)
    configs = [row['config'] for row in CONFIGS]
    assert len(set(configs)) == len(configs)
    assert set(configs) <= set(leaf_configs())


@pytest.mark.parametrize('folder', EXAMPLES)
def test_counts_are_those_of_today(folder):
    """Else: `python benchmarks/fusion_coverage.py configs`, then coverage_page.py."""
    known = EXAMPLES[folder]
    assert known.items() >= config_row(known['config']).items()
