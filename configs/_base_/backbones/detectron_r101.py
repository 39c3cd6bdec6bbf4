# Detectron's ResNet-101-GN (weights CC BY-SA 3.0).
backbone = dict(
    depth=101, init_cfg=dict(checkpoint='open-mmlab://detectron/resnet101_gn')
)
