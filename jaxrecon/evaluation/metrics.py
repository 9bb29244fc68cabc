"""The per-example errors under the name that evaluations look for them."""

from jaxrecon.geometry.metrics import keypoint_error, mean_distance, mpjpe, pa_mpjpe, pve

__all__ = ["keypoint_error", "mean_distance", "mpjpe", "pa_mpjpe", "pve"]
