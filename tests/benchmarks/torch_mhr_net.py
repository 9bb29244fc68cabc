"""MHR-Net's training step in PyTorch, written from spec mhr_net for the comparison.

As published, layers are 1x1 convolutions with batch norm on (B, C, 1, 1); `dense=True` says the
same with linear layers, which PyTorch may run faster.
"""

import torch
from torch import nn

EPS = 1e-4


def _layer(inputs: int, outputs: int, dense: bool) -> nn.Module:
    return nn.Linear(inputs, outputs) if dense else nn.Conv2d(inputs, outputs, 1)


def _norm(width: int, dense: bool) -> nn.Module:
    return nn.BatchNorm1d(width) if dense else nn.BatchNorm2d(width)


class First(nn.Module):
    """The first layer of a trunk."""

    def __init__(self, inputs: int, width: int, dense: bool):
        super().__init__()
        self.conv1, self.bn1 = _layer(inputs, width, dense), _norm(width, dense)

    def forward(self, x):
        return torch.relu(self.bn1(self.conv1(x)))


class Block(nn.Module):
    """Residual bottleneck of three layers."""

    def __init__(self, width: int, dense: bool):
        super().__init__()
        inner = width // 4
        self.conv1, self.bn1 = _layer(width, inner, dense), _norm(inner, dense)
        self.conv2, self.bn2 = _layer(inner, inner, dense), _norm(inner, dense)
        self.conv3, self.bn3 = _layer(inner, width, dense), _norm(width, dense)

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        y = torch.relu(self.bn2(self.conv2(y)))
        return torch.relu(self.bn3(self.conv3(y)) + x)


def _trunk(inputs: int, width: int, blocks: int, dense: bool) -> nn.Sequential:
    first = First(inputs, width, dense)
    return nn.Sequential(first, *(Block(width, dense) for _ in range(blocks)))


def exponential(w):
    phi = torch.sqrt(torch.clamp((w * w).sum(-1), min=0))[:, None, None]
    q = 1 / (phi + EPS)
    zero = torch.zeros_like(w[:, 0])
    x, y, z = w.unbind(-1)
    k = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    eye = torch.eye(3, dtype=w.dtype)
    return eye + q * torch.sin(phi) * k + q * q * (1 - torch.cos(phi)) * (k @ k)


class MHRNet(nn.Module):
    """The network with the objective of spec mhr_net 4.4."""

    def __init__(self, system, dense=False):
        """`system`: the settings, of ours."""
        super().__init__()
        joints, width, blocks, bases = system.joints, system.width, system.blocks, system.bases
        self.system, self.joints, self.dense = system, joints, dense
        self.fe_net = _trunk(2 * joints, width, blocks, dense)
        self.psi_net = _trunk(3 * joints, width, blocks, dense)
        self.alpha_layer = _layer(width, bases, dense)
        self.alpha_layer_psi = _layer(width, bases, dense)
        self.shape_layer = _layer(bases, 3 * joints, dense)
        self.rot_layer = _layer(width, 3, dense)
        self.deformation_layer = nn.Sequential(
            _layer(width + bases + 4, 64, dense), nn.ReLU(), _layer(64, 3 * joints, dense)
        )

    def load(self, state_dict):
        """Weights by their published names; what is never used is left out."""
        own = self.state_dict()
        self.load_state_dict(
            {name: torch.from_numpy(state_dict[name]).reshape(own[name].shape) for name in own}
        )
        return self

    def _wide(self, x):
        return x if self.dense else x[:, :, None, None]

    def _flat(self, x):
        return x if self.dense else x[:, :, 0, 0]

    def forward(self, keypoints, z, axis, angle, permutation, view=None):
        """The weighted objective of a batch; `view`: rotation vectors of second views."""
        count, joints = len(keypoints), self.joints
        x = keypoints - keypoints[:, :1]
        feature = self.fe_net(self._wide(x.reshape(count, -1)))
        c = self.alpha_layer(feature)
        basis = self._flat(self.shape_layer(c)).reshape(count, joints, 3)
        told = torch.cat([feature, c], 1)
        told = told.repeat(3, *([1] * (told.ndim - 1)))
        deformed = self._flat(self.deformation_layer(torch.cat([told, self._wide(z)], 1)))
        shapes = basis[None] + deformed.reshape(3, count, joints, 3)
        rotation = exponential(self._flat(self.rot_layer(feature)))
        seen = shapes @ rotation
        image = seen[..., :2] / torch.clamp(5 + seen[..., 2:], min=1)
        error = torch.sqrt(((x - image) ** 2).sum((-1, -2)))
        best = error.argmin(0)
        rows = torch.arange(count)
        final = (x - image[best, rows]).norm(dim=-1).mean()
        flat = basis @ rotation
        mean = (x - flat[..., :2] / torch.clamp(5 + flat[..., 2:], min=1)).norm(dim=-1).mean()

        target = (basis - basis[:, :1]).repeat(4, 1, 1)
        unit = axis / torch.clamp(axis.norm(dim=-1, keepdim=True), min=1e-12)
        turned = target @ exponential(unit * angle[:, None])
        psi = self.psi_net(self._wide(turned.reshape(4 * count, -1)))
        found = self._flat(self.shape_layer(self.alpha_layer_psi(psi)))
        cycle = (found.reshape(-1, joints, 3) - target).norm(dim=-1).mean()
        procrust = self._procrust(shapes[best, rows], permutation)
        own = self.system
        total = own.w_reprojection * (own.w_final * final + own.w_mean * mean)
        total = total + own.w_cycle * cycle + own.w_procrust * procrust
        if view is not None:
            points = seen[best, rows]
            target = (points - points[:, :1]) @ exponential(view)
            image = target[..., :2] / torch.clamp(5 + target[..., 2:], min=1)
            total = total + own.w_view * self._view(target, image)
            total = total + own.w_likely * self._surprise(image).mean()
        return total

    def _surprise(self, image):
        """Of second views, as 2D poses (not published)."""
        points = (image - image[:, :1]).flatten(1)
        away = points[None] - self.views["mean"][:, None]
        away = (away @ self.views["whiten"].mT).square().sum(-1)
        density = self.views["log_weight"] - 0.5 * away.T
        return -torch.logsumexp(density, 1) / points.shape[1]

    def _view(self, target, image):
        """What is seen from another side must be lifted to what it is there (not published)."""
        feature = self.fe_net(self._wide(image.reshape(len(image), -1)))
        shape = self._flat(self.shape_layer(self.alpha_layer(feature)))
        turn = exponential(self._flat(self.rot_layer(feature)))
        found = shape.reshape(-1, self.joints, 3) @ turn
        return (found - found[:, :1] - target).norm(dim=-1).mean()

    def _procrust(self, shapes, permutation):
        first = shapes[permutation[: self.system.pairs]]
        second = shapes[permutation[self.system.pairs : 2 * self.system.pairs]]
        with torch.no_grad():
            u, _, vt = torch.linalg.svd(second.transpose(1, 2) @ first)
            turn = u @ vt
        before = (first - second).flatten(1).norm(dim=1)
        after = (first - second @ turn).flatten(1).norm(dim=1)
        chosen = (after / second.flatten(1).norm(dim=1)).detach() < self.system.margin
        return ((before - after) * chosen).sum() / chosen.sum().clamp(min=1)


def trainer(module: MHRNet):
    """A step by the published optimiser (SGD, momentum, weight decay), or by Adam."""
    system = module.system
    settings = {"lr": system.rate, "weight_decay": system.weight_decay, "fused": True}
    if system.optimizer_name == "adam":
        optimizer = torch.optim.AdamW(module.parameters(), **settings)
    else:
        optimizer = torch.optim.SGD(module.parameters(), momentum=system.momentum, **settings)

    def step(*batch):
        optimizer.zero_grad(set_to_none=True)
        loss = module(*batch)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step
