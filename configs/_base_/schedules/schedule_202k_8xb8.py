# detectron2's 9x from scratch: 202,500 iterations of 64 images, as many images as 810k
# iterations of 16.
_base_ = './schedule_270k.py'

max_iters = 202_500
train_cfg = dict(max_iters=max_iters)
optim_wrapper = dict(optimizer=dict(lr=0.08))
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], end=max_iters, milestones=[187_500, 197_500]),
]
auto_scale_lr = dict(base_batch_size=64)
