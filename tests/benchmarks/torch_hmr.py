"""Test-time optimisation of Meta-HMR in PyTorch, as anyone would write it from the spec.

Spec meta_hmr sections 2.3, 3 and 6.1: one plain step of the regressor's linear layers on the dual
loss, then Adam on the whole network. No one's code but ours.
"""

import copy

import numpy as np
import torch
from torch import nn

from jaxrecon.bodies.joints import SPIN49_FROM_54
from tests.benchmarks.torch_resnet import ResNet50
from tests.benchmarks.torch_skinning import SkinnedBody

LINEAR = ("fc1", "fc2", "decpose", "decshape", "deccam")
EPS = 1e-9


class Regressor(ResNet50):
    """Images and box information to rotations, shape and camera (CLIFF)."""

    def __init__(self, iterations: int, hidden: int = 1024) -> None:
        super().__init__()
        self.iterations = iterations
        self.fc1 = nn.Linear(2048 + 3 + 144 + 10 + 3, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.decpose = nn.Linear(hidden, 144)
        self.decshape = nn.Linear(hidden, 10)
        self.deccam = nn.Linear(hidden, 3)
        for name, size in (("pose", 144), ("shape", 10), ("cam", 3)):
            self.register_buffer(f"init_{name}", torch.zeros(1, size))

    def forward(self, image, box):
        features = super().forward(image)
        count = len(image)
        pose, shape, cam = (
            x.expand(count, -1) for x in (self.init_pose, self.init_shape, self.init_cam)
        )
        for _ in range(self.iterations):
            hidden = self.fc2(self.fc1(torch.cat([features, box, pose, shape, cam], 1)))
            pose = pose + self.decpose(hidden)
            shape = shape + self.decshape(hidden)
            cam = cam + self.deccam(hidden)
        return rotations(pose), shape, cam


def rotations(pose):
    columns = pose.reshape(-1, 3, 2)
    first = nn.functional.normalize(columns[:, :, 0], dim=1)
    second = columns[:, :, 1]
    second = second - (first * second).sum(1, keepdim=True) * first
    second = nn.functional.normalize(second, dim=1)
    third = torch.linalg.cross(first, second, dim=1)
    return torch.stack([first, second, third], 2).reshape(len(pose), -1, 3, 3)


class Body(SkinnedBody):
    """The body layer with SPIN's 49 joints."""

    def __init__(self, body, regressor):
        super().__init__(
            body.v_template, body.shapedirs, body.posedirs, regressor, body.weights, body.parents
        )
        self.landmarks = torch.tensor(np.array(body.vertex_ids, np.int64))
        self.extra = torch.tensor(np.array(body.J_regressor_extra, np.float32))
        self.order = torch.tensor(np.array(SPIN49_FROM_54, np.int64))

    def forward(self, betas, rotmats):
        vertices, joints = self.skin(betas, rotmats)
        extra = torch.einsum("jv,bvc->bjc", self.extra, vertices)
        everything = torch.cat([joints, vertices[:, self.landmarks], extra], 1)
        return vertices, everything[:, self.order]


def keypoint_loss(joints, cam, batch):
    """Reprojection through the photograph's camera into the crop (spec 3.7 to 3.9, 4)."""
    size = 200 * batch["scale"] * cam[:, 0] + EPS
    height, width = batch["image_size"].unbind(1)
    x = 2 * (batch["center"][:, 0] - width / 2) / size + cam[:, 1]
    y = 2 * (batch["center"][:, 1] - height / 2) / size + cam[:, 2]
    focal = batch["focal_length"]
    points = joints + torch.stack([x, y, 2 * focal / size], 1)[:, None]
    middle = torch.stack([width, height], 1)[:, None] / 2
    full = focal[:, None, None] * points[..., :2] / points[..., 2:] + middle
    crop = torch.einsum("bij,bnj->bni", batch["crop_trans"][:, :, :2], full)
    crop = crop + batch["crop_trans"][:, None, :, 2]
    half = torch.tensor([batch["image"].shape[3] / 2, batch["image"].shape[2] / 2])
    truth = batch["keypoints2d"]
    weight = truth[..., 2:].clone()
    weight[:, :25] = 0
    return (weight * (crop / half - truth[..., :2] / half) ** 2).mean()


def dual_loss(found, pseudo, batch, weights):
    (
        (rotmats, betas, cam, vertices, joints),
        (aux_rotmats, aux_betas, _, aux_vertices, aux_joints),
    ) = (
        found,
        pseudo,
    )

    def rooted(x):
        return x[:, 25:] - (x[:, 27:28] + x[:, 28:29]) / 2

    terms = {
        "keypoints2d": keypoint_loss(joints, cam, batch),
        "joints3d": ((rooted(joints) - rooted(aux_joints)) ** 2).mean(),
        "vertices": (vertices - aux_vertices).abs().mean(),
        "pose": ((rotmats - aux_rotmats) ** 2).mean(),
        "betas": ((betas - aux_betas) ** 2).mean(),
        "camera": (torch.exp(-10 * cam[:, 0]) ** 2).mean(),
    }
    return sum(getattr(weights, name) * value for name, value in terms.items())


def test_time_optimise(main, aux, body, batch, settings, weights, steps):
    """(rotmats, betas, cam) after the dual step and `steps` steps of Adam."""
    main = copy.deepcopy(main).eval()
    aux = aux.eval()

    def embody(network):
        rotmats, betas, cam = network(batch["image"], batch["bbox_info"])
        return rotmats, betas, cam, *body(betas, rotmats)

    with torch.no_grad():
        pseudo = embody(aux)
    linear = [p for name in LINEAR for p in getattr(main, name).parameters()]
    gradients = torch.autograd.grad(dual_loss(embody(main), pseudo, batch, weights), linear)
    with torch.no_grad():
        for parameter, gradient in zip(linear, gradients, strict=True):
            parameter -= settings.inner_lr * gradient
    adam = torch.optim.Adam(main.parameters(), lr=settings.after_lr)
    for _ in range(steps):
        rotmats, betas, cam = main(batch["image"], batch["bbox_info"])
        adam.zero_grad(set_to_none=True)
        keypoint_loss(body(betas, rotmats)[1], cam, batch).backward()
        adam.step()
    with torch.no_grad():
        return main(batch["image"], batch["bbox_info"])
