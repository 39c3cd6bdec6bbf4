_base_ = [
    './_base_/mask-rcnn_r50_fpn_gn_detectron.py',
    './_base_/coco_instance_detectron.py',
    './_base_/schedule_2x.py',
    '../_base_/iter_runtime.py',
]
