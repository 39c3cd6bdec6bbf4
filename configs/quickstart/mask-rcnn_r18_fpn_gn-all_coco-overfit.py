# The quickstart's model on a handful of real COCO images, to see that it learns them by
# heart. `ann_file` names a part of COCO with few images; the figures are of the same.
_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn_gn_small.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/small_8e.py',
    '../_base_/small_runtime.py',
]

data_root = 'data/coco/'
ann_file = 'annotations/instances_overfit.json'
image_dir = dict(img='train2017/')
scale = (256, 192)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=scale, keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=20,
        dataset=dict(
            type='CocoDataset',
            data_root=data_root,
            ann_file=ann_file,
            data_prefix=image_dir,
            pipeline=train_pipeline,
        ),
    ),
)
val_dataloader = dict(
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        data_root=data_root,
        ann_file=ann_file,
        data_prefix=image_dir,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + ann_file)
test_evaluator = val_evaluator
