# Runs of minutes: log often, keep two checkpoints, start from a fixed seed.
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    logger=dict(interval=10), checkpoint=dict(interval=2, max_keep_ckpts=2)
)
randomness = dict(seed=0)
