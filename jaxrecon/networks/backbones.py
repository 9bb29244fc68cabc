"""Every backbone by name: images to named activations and pooled `features`."""

import flax.linen as nn

from jaxrecon.networks.hrnet import HRNETS, HRNet, HRNetSpec
from jaxrecon.networks.resnet import RESNETS, ResNet, ResNetSpec

BACKBONES: dict[str, ResNetSpec | HRNetSpec] = {**RESNETS, **HRNETS}


def backbone(name: str, axis_name: str | None = None) -> nn.Module:
    """The network of a name in `BACKBONES`.

    Args:
        axis_name: Mapped axis over which batch statistics are taken, if any.
    """
    spec = BACKBONES[name]
    if isinstance(spec, HRNetSpec):
        return HRNet(spec, axis_name=axis_name)
    return ResNet(spec, axis_name=axis_name)
