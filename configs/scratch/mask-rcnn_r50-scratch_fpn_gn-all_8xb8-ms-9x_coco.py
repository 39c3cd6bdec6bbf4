# detectron2's recipe (configs/Misc/scratch_mask_rcnn_R_50_FPN_9x_gn.yaml); its weights
# fit after conversion. 8 GPUs with 8 images each.
_base_ = [
    '../_base_/models/mask-rcnn_r50-scratch_fpn_gn.py',
    '../_base_/datasets/coco_instance_ms-iter.py',
    '../_base_/schedules/schedule_202k_8xb8.py',
    '../_base_/iter_runtime.py',
]

model = dict(
    data_preprocessor=dict(_base_.detectron_pixels, std=[57.375, 57.120, 58.395])
)
train_dataloader = dict(batch_size=8)
