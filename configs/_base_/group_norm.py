# Group Norm and what goes with it wherever the models of the zoo have it.
_base_ = './plugin.py'

group_norm = dict(type='FusedGN', num_groups=32, requires_grad=True)
# The box head of arXiv 1803.08494, section 4.2: four convolutions, one hidden layer.
box_head = dict(
    type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=group_norm
)
# Detectron's ResNet-50-GN (weights CC BY-SA 3.0) saw BGR images, a mean and no std.
# Its stride stands in the 3×3 convolutions: style='pytorch', as the bases have it.
detectron_pixels = dict(
    mean=[103.530, 116.280, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False
)
detectron_r50 = dict(type='Pretrained', checkpoint='open-mmlab://detectron/resnet50_gn')
# torchvision's: RGB images, mean and std of ImageNet.
imagenet_pixels = dict(
    mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
)
