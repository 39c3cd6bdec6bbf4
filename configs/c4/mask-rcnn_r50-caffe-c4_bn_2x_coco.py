# 24 epochs of 16 images for Detectron's 360k iterations of 8 at half the rate.
_base_ = [
    '../_base_/models/mask-rcnn_r50-caffe-c4_bn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
]
