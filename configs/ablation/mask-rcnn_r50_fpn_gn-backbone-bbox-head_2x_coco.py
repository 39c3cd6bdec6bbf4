# arXiv 1803.08494, table 5, row 3: GN in ResNet, FPN and box head, none in the mask
# head. With it there too the model is gn/mask-rcnn_r50_fpn_gn-all_2x_coco.py.
_base_ = [
    '../_base_/models/mask-rcnn_r50_fpn_gn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/schedule_2x.py',
    'mmdet::_base_/default_runtime.py',
]

model = dict(roi_head=dict(mask_head=dict(norm_cfg=None)))
