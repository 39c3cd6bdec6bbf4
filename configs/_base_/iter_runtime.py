# Training counted in iterations: checkpoints every 10,000, of which three are kept.
_base_ = 'mmdet::_base_/default_runtime.py'

default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=10_000, max_keep_ckpts=3),
    # Otherwise every evaluation is logged at step 0.
    logger=dict(log_metric_by_epoch=False),
)
log_processor = dict(by_epoch=False)
