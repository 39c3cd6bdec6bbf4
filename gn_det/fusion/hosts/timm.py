"""timm's norms, which have their activation inside, and the blocks around them."""

from __future__ import annotations

from torch import nn

from gn_det.fusion.calls import FusedNorm, activation_of, kind_of
from gn_det.fusion.core import register
from gn_det.fusion.rewriting import Rewritten
from gn_det.fusion.waiting import FusedPassing

_LAYERS = 'timm.layers'
_MODELS = 'timm.models'


@register(f'{_LAYERS}.norm.GroupNorm', code=['4cd820444e85'])
@register(f'{_LAYERS}.norm.GroupNorm1', code=['4cd820444e85'])
class FusedGroupNorm(FusedNorm):
    """Group Norm with the number of channels first."""

    @staticmethod
    def fused_norms(module):
        yield module, kind_of(None)


@register(f'{_LAYERS}.norm_act.GroupNormAct', code=['f2abd6d0fabc'])
@register(f'{_LAYERS}.norm_act.GroupNorm1Act', code=['f2abd6d0fabc'])
class FusedGroupNormAct(FusedNorm):
    """Group Norm that applies an activation itself, or none."""

    @staticmethod
    def fused_norms(module):
        if _does_nothing(module.drop):
            yield module, kind_of(None if _does_nothing(module.act) else module.act)
        else:
            yield module, f'{type(module.drop).__name__} follows it'

    def takes_in(self):
        return _does_nothing(self.drop) and _does_nothing(self.act)

    def forward(self, x, residual=None, activation=None):
        if not _does_nothing(self.drop):
            return self.act(self.drop(self.normalised(x)))
        if _does_nothing(self.act):
            return self.normalised(x, residual, activation)
        activation = activation_of(self.act)
        if activation is None:
            return self.act(self.normalised(x))
        return self.normalised(x, activation=activation)


_BLOCKS = {
    'layers.conv_bn_act': {
        'ConvNormAct': '6fd86c0f70e0',
    },
    'layers.selective_kernel': {
        'SelectiveKernelAttn': '84a60437a872',
    },
    'layers.split_attn': {
        'SplitAttn': '066ec41d4f99',
    },
    'layers.squeeze_excite': {
        'SEModule': '14dccef35ff4',
    },
    'models._efficientnet_blocks': {
        'CondConvResidual': '7ff81620506a',
        'ConvBnAct': '00182d1ef541',
        'DepthwiseSeparableConv': 'dfe1a94531ee',
        'EdgeResidual': '1b494f8cb81c',
        'InvertedResidual': '8a6c4d5b01f8',
        'UniversalInvertedResidual': '3b92c20f6998',
    },
    'models.byobnet': {
        'BasicBlock': 'e64a7d8b90b0',
        'BottleneckBlock': '4a575935a587',
        'DarkBlock': '5cb673582dea',
        'EdgeBlock': '7a8e80a07518',
        'MobileOneBlock': '1f320fdc6575',
        'RepVggBlock': '0bad2b33429a',
        'SelfAttnBlock': '13b44983bde8',
    },
    'models.convmixer': {
        'Residual': '6a70dd7d90ba',
    },
    'models.cpubone': {
        'ConvLayer': 'd3d07b70021f',
    },
    'models.cspnet': {
        'BottleneckBlock': '09b37665947c',
        'DarkBlock': 'dc182c453bb4',
        'EdgeBlock': 'dc182c453bb4',
    },
    'models.dla': {
        'DlaBasic': '6371a03730b4',
        'DlaBottle2neck': '32206179e2ce',
        'DlaBottleneck': '0f15c38d7ed5',
        'DlaRoot': '002dad941eee',
    },
    'models.efficientformer_v2': {
        'ConvNorm': 'ca6bfc14b353',
    },
    'models.efficientvim': {
        'ConvLayer2d': 'd3d07b70021f',
    },
    'models.efficientvit_mit': {
        'ConvBlock': 'd4ae2daf7f17',
        'ConvNormAct': '3da7f183a1e0',
        'ResidualBlock': 'be8a04d0cb71',
    },
    'models.efficientvit_msra': {
        'ConvMlp': 'c229581c10dd',
        'ResidualDrop': '58c8892fd26c',
    },
    'models.fastvit': {
        'MobileOneBlock': '9d1ca30bbbe1',
        'RepConditionalPosEnc': '0a9260c903f8',
        'ReparamLargeKernelConv': '16b3c261c534',
    },
    'models.ghostnet': {
        'ConvBnAct': '00182d1ef541',
        'GhostBottleneck': '56b2f667add8',
        'GhostBottleneckV3': 'cef859f772cb',
        'GhostModuleV3': '46c86d07cc10',
    },
    'models.hgnet': {
        'ConvBNAct': 'aa0214c19180',
    },
    'models.hrnet': {
        'HighResolutionModule': '48f7ea247fca',
        'HighResolutionNet': 'cbcb7bff8c64',
    },
    'models.iformer': {
        'Residual': '83b76b8e7b4e',
    },
    'models.levit': {
        'ConvNorm': 'd555b90d7ad0',
        'LevitBlock': 'ceca36c87766',
        'LevitMlp': 'b3efc94f3419',
    },
    'models.lowformer': {
        'ConvLayer': '776a1990d350',
    },
    'models.mobilevit': {
        'MobileVitBlock': 'c6c48cf4a38c',
    },
    'models.nasnet': {
        'ActConvBn': 'b4f6d9d92537',
        'BranchSeparables': 'ae86072bab9a',
        'CellStem0': '68066d37dfdc',
        'CellStem1': 'c630924953a3',
        'FirstCell': '93c728bb6404',
        'NormalCell': 'fc6b132e16e9',
        'ReductionCell0': 'a1c632de5f84',
        'ReductionCell1': 'a1c632de5f84',
    },
    'models.nextvit': {
        'ConvAttention': 'be1508e5dda7',
        'ConvNormAct': '776a1990d350',
        'NextConvBlock': 'b8ba0d338248',
    },
    'models.pnasnet': {
        'ActConvBn': 'b4f6d9d92537',
        'BranchSeparables': 'ae86072bab9a',
    },
    'models.regnet': {
        'Bottleneck': '01e48f931464',
        'PreBottleneck': 'e578b7b4b2a1',
    },
    'models.repghost': {
        'RepGhostBottleneck': '56b2f667add8',
        'RepGhostModule': 'af6e65af32b8',
    },
    'models.repvit': {
        'RepVggDw': 'e7a1a726350b',
        'RepViTBlock': 'ff2ef5f1c921',
    },
    'models.res2net': {
        'Bottle2neck': '395dc6a61bb8',
    },
    'models.resnest': {
        'ResNestBottleneck': '3d8f00737cea',
    },
    'models.resnet': {
        'BasicBlock': '8e1cb085ef16',
        'Bottleneck': 'cca649cea420',
    },
    'models.resnetv2': {
        'Bottleneck': 'ba8e7bd03c60',
    },
    'models.senet': {
        'Bottleneck': '459c71e7c2c8',
        'SEResNetBlock': '4fbd4c0bab2b',
    },
    'models.shvit': {
        'Residual': '38cf30d52d02',
    },
    'models.sknet': {
        'SelectiveKernelBasic': 'eec264343d12',
        'SelectiveKernelBottleneck': '5ea104d9b9ec',
    },
    'models.tiny_vit': {
        'MBConv': '5293f7fed345',
    },
    'models.tresnet': {
        'BasicBlock': '7bd1cb1e5d45',
        'Bottleneck': '121c39774185',
    },
    'models.vovnet': {
        'OsaBlock': '813763040231',
    },
    'models.xception': {
        'Block': 'd91d0da49673',
    },
    'models.xception_aligned': {
        'PreXceptionModule': '57c060ddf7d1',
        'SeparableConv2d': 'ed09c4fd5741',
        'XceptionModule': '92d9239d291b',
    },
}
"""The code of blocks of which each norm's output goes to one place."""

for _module, _codes in _BLOCKS.items():
    for _name, _code in _codes.items():
        register(f'timm.{_module}.{_name}', code=[_code])(Rewritten)

for _name, _code, _methods in (
    ('_features.FeatureDictNet', 'a98dafd18118', ['forward', '_collect']),
    ('_features.FeatureListNet', 'f64aacd66841', ['forward', '_collect']),
    ('ghostnet.GhostNet', 'bac27e1014a1', ['forward_features']),
    ('hrnet.HighResolutionNet', 'a7abc6865ec9', ['stages', 'forward_features']),
    ('pnasnet.Cell', 'aed969e9b51f', ['forward', 'cell_forward']),
    ('pnasnet.CellStem0', '893d1f93f0a7', ['forward', 'cell_forward']),
    ('repghost.RepGhostNet', 'bac27e1014a1', ['forward_features']),
    ('resnet.ResNet', 'a98d1a88d9be', ['forward_features']),
    ('xception.Xception', 'e5a4de9d443e', ['forward_features']),
):
    register(f'{_MODELS}.{_name}', code=[_code], methods=_methods)(Rewritten)

register(f'{_LAYERS}.drop.DropPath', code=['9f51620e47ae'])(FusedPassing)


def _does_nothing(module: nn.Module | None) -> bool:
    return module is None or type(module) is nn.Identity
