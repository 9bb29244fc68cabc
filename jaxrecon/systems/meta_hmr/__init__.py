"""Meta-HMR: test-time optimisation inside training (arXiv 2401.14121)."""

from jaxrecon.systems.meta_hmr.losses import LossWeights
from jaxrecon.systems.meta_hmr.system import AdaptSettings, MetaHMR

__all__ = ["LossWeights", "MetaHMR", "AdaptSettings"]
