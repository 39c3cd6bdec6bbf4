# detectron2's 3x: 270k iterations of 16 images, a warm-up of 1000.
_base_ = './schedule_2x.py'

max_iters = 270_000
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=max_iters, val_interval=10_000
)
param_scheduler = [
    dict(_base_.param_scheduler[0], end=1000),
    dict(
        _base_.param_scheduler[1],
        end=max_iters,
        by_epoch=False,
        milestones=[210_000, 250_000],
    ),
]
