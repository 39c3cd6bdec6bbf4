"""What mmengine asks a package's `utils` for."""

from __future__ import annotations

import pytest
from mmengine.registry import DefaultScope

from gn_det.utils import register_all_modules


@pytest.mark.filterwarnings('ignore:The current default scope')
@pytest.mark.parametrize(
    ('arguments', 'initialised'), [((), 0), ((False,), 0), ((True,), 1)]
)
def test_the_default_scope_is_set_where_it_is_asked_for(arguments, initialised):
    with DefaultScope.overwrite_default_scope('mmengine'):
        before = DefaultScope.get_current_instance().scope_name
        register_all_modules(*arguments)
        after = DefaultScope.get_current_instance().scope_name
    assert (before, after) == ('mmengine', 'mmdet' if initialised else 'mmengine')
