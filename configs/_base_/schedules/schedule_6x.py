# 73 epochs ≈ 535k iterations of 16 images, for the 540k of arXiv 1811.08883; the rate
# drops about 60k and 15k before the end, where the paper has 60k and 20k.
_base_ = './schedule_2x.py'

train_cfg = dict(max_epochs=73)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=73, milestones=[65, 71]),
]
