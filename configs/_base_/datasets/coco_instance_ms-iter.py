# The same for training counted in iterations: the sampler never ends.
_base_ = './coco_instance_ms.py'

train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
