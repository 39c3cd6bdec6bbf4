# Detectron's 3x: 270k iterations of 16 images with its warm-up and its optimiser, which
# decays neither norms nor biases and gives biases twice the rate.
_base_ = '../../_base_/schedules/schedule_270k.py'

warm_up = dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=500)
param_scheduler = [
    warm_up,
    dict(
        type='MultiStepLR',
        begin=0,
        end=270_000,
        by_epoch=False,
        milestones=[210_000, 250_000],
        gamma=0.1,
    ),
]
optim_wrapper = dict(
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0, bias_lr_mult=2.0)
)
