# Detectron's 2x.
_base_ = './schedule_3x.py'

train_cfg = dict(max_iters=180_000)
param_scheduler = [
    _base_.warm_up,
    dict(
        type='MultiStepLR',
        begin=0,
        end=180_000,
        by_epoch=False,
        milestones=[120_000, 160_000],
        gamma=0.1,
    ),
]
