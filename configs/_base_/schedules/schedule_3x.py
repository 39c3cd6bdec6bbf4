# 36 epochs ≈ 264k iterations of 16 images, for the 270k of paper and Detectron.
_base_ = './schedule_2x.py'

train_cfg = dict(max_epochs=36)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=36, milestones=[28, 34]),
]
