"""The plugin comes before mmdet, whose operators it may have to provide."""

import gn_det  # noqa: F401
