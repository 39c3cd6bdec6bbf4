# mmdet's C4 model, frozen BN, with the fifth stage that the heads share pretrained too:
# mmdet starts it at random, Detectron and detectron2 do not.
_base_ = ['mmdet::_base_/models/mask-rcnn_r50-caffe-c4.py', '../plugin.py']

model = dict(
    roi_head=dict(
        shared_head=dict(
            init_cfg=dict(
                type='Pretrained', checkpoint='open-mmlab://detectron2/resnet50_caffe'
            )
        )
    )
)
