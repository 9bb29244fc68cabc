"""Body models of the SMPL family: arrays as a pytree, skinning, joint sets by name."""

from jaxrecon.bodies.load import build_body, load_body
from jaxrecon.bodies.model import (
    BodyModel,
    BodyOutput,
    body_forward,
    body_subset,
    forward_kinematics,
    h36m_joints,
    joints49,
    joints49_forward,
    joints49_model,
    lsp14_centred,
)

__all__ = [
    "BodyModel",
    "BodyOutput",
    "body_forward",
    "body_subset",
    "build_body",
    "forward_kinematics",
    "h36m_joints",
    "joints49",
    "joints49_forward",
    "joints49_model",
    "load_body",
    "lsp14_centred",
]
