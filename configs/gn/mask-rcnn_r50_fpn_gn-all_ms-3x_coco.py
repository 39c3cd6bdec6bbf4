# detectron2's recipe (configs/Misc/mask_rcnn_R_50_FPN_3x_gn.yaml); its weights fit
# after conversion.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_gn.py',
    '../_base_/datasets/coco_instance_ms-iter.py',
    '../_base_/schedules/schedule_270k.py',
    '../_base_/iter_runtime.py',
]
