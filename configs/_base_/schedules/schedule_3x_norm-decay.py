# As mmdetection trained its published 3x weights: γ and β decay like any weight.
_base_ = './schedule_3x.py'

optim_wrapper = dict(paramwise_cfg=dict(norm_decay_mult=1.0))
