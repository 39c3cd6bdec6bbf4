backbone = dict(depth=101, init_cfg=dict(checkpoint='open-mmlab://jhu/resnet101_gn_ws'))
