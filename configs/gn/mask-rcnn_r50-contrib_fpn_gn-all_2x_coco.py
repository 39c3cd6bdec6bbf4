# As mmdetection trained its published weights: γ and β decay like any weight.
# `optim_wrapper.paramwise_cfg.norm_decay_mult=0` is the paper's way.
_base_ = [
    '../_base_/models/mask-rcnn_r50-contrib_fpn_gn.py',
    '../_base_/datasets/coco_instance.py',
    'mmdet::_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
]
