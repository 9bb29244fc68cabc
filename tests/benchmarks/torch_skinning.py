"""A body layer in PyTorch as anyone would write it from the equations of SMPL.

Loper et al. 2015, equations 2 to 10: blend shapes one after the other, a loop over the joints
with 4x4 matrices, homogeneous vertices. It has no cleverness, and is no one's code but ours.
"""

import numpy as np
import torch


class SkinnedBody(torch.nn.Module):
    def __init__(
        self,
        template: np.ndarray,
        shapedirs: np.ndarray,
        posedirs: np.ndarray,
        regressor: np.ndarray,
        weights: np.ndarray,
        parents: tuple[int, ...],
    ):
        super().__init__()
        given = {
            "template": template,
            "shapedirs": shapedirs,
            "posedirs": posedirs,
            "regressor": regressor,
            "weights": weights,
        }
        for name, array in given.items():
            self.register_buffer(name, torch.tensor(np.array(array, np.float32)))
        self.parents = parents

    def forward(self, betas: torch.Tensor, rotmats: torch.Tensor) -> torch.Tensor:
        """betas (B, 10) and rotation matrices (B, 24, 3, 3) to vertices (B, V, 3)."""
        return self.skin(betas, rotmats)[0]

    def skin(self, betas: torch.Tensor, rotmats: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The same, and the posed joints (B, 24, 3)."""
        batch = betas.shape[0]
        shaped = self.template + torch.einsum("bs,vcs->bvc", betas, self.shapedirs)
        joints = torch.einsum("bvc,jv->bjc", shaped, self.regressor)
        feature = (rotmats[:, 1:] - torch.eye(3)).reshape(batch, -1)
        posed = shaped + torch.einsum("bp,vcp->bvc", feature, self.posedirs)

        transforms: list[torch.Tensor] = []
        for j, parent in enumerate(self.parents):
            local = torch.zeros(batch, 4, 4)
            local[:, :3, :3] = rotmats[:, j]
            local[:, :3, 3] = joints[:, j] - (joints[:, parent] if j else 0)
            local[:, 3, 3] = 1
            transforms.append(transforms[parent] @ local if j else local)
        world = torch.stack(transforms, 1)
        at_rest = torch.einsum("bjkl,bjl->bjk", world[:, :, :3, :3], joints)
        relative = world.clone()
        relative[:, :, :3, 3] = world[:, :, :3, 3] - at_rest

        blended = torch.einsum("vj,bjkl->bvkl", self.weights, relative)
        homogeneous = torch.cat([posed, torch.ones(batch, posed.shape[1], 1)], 2)
        return torch.einsum("bvkl,bvl->bvk", blended, homogeneous)[..., :3], world[:, :, :3, 3]
