"""MHR-Net: several hypotheses of a non-rigid shape from one 2D view (arXiv 2207.09086)."""

from jaxrecon.systems.mhr_net.evidence import Forward, Lifting, Noise
from jaxrecon.systems.mhr_net.system import MHRNet

__all__ = ["Forward", "Lifting", "MHRNet", "Noise"]
