"""Where the substitute's operators are tested."""

import pytest

DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)]
