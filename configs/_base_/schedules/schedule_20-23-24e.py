# 24 epochs with late drops, as mmdetection trained GN with Weight Standardization; its
# published weights decayed γ and β too.
_base_ = 'mmdet::_base_/schedules/schedule_2x.py'

param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], milestones=[20, 23]),
]
