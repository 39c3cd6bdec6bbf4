# mmdet's 2x with no weight decay on γ and β, as paper and Detectron trained GN. Every
# schedule of ours stands on this one.
_base_ = 'mmdet::_base_/schedules/schedule_2x.py'

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=0.0))
