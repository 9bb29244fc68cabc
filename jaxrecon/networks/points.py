"""Features that say where things are: spatial softmax (Finn et al. 2016, section IV-B).

Pooling a map by its mean hides places, which a pose is made of. Large networks learn it all the
same, from large collections. A small one that starts from nothing learns it much sooner when its
maps are read at points: the softmax of a map over all places, and what is found there.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrecon.networks.layers import BatchNorm, Conv
from jaxrecon.typing import AnyArray, Array, Float

_CHANNELS = 64


class PointPooling(nn.Module):
    """Stages of a residual network to features, through one map for each of some points.

    Attributes:
        points: How many.
        features: Channels that come out.
        norm: Settings of the batch norms.
    """

    points: int
    features: int
    norm: Mapping[str, Any]

    @nn.compact
    def __call__(self, stages: list[Float[AnyArray, "b _h _w _c"]]) -> dict[str, Array]:
        """`features` (B, C), and `point_logits` (B, h, w, points) on the grid of the first stage.

        Args:
            stages: Activations, finest first.
        """
        count, height, width, _ = stages[0].shape
        shape = (count, height, width, _CHANNELS)
        merged = jnp.zeros(shape)
        for i, stage in enumerate(stages):
            lateral = Conv(_CHANNELS, 1, 1, 0, name=f"lateral{i}")(jnp.asarray(stage))
            merged = merged + jax.image.resize(lateral, shape, "bilinear")
        merged = nn.relu(BatchNorm(**self.norm, name="merged_bn")(merged))
        merged = Conv(_CHANNELS, 3, 1, 1, name="smooth")(merged)
        merged = nn.relu(BatchNorm(**self.norm, name="smooth_bn")(merged))

        logits = nn.Dense(self.points, name="maps")(merged)
        attention = nn.softmax(logits.reshape(count, height * width, self.points), axis=1)
        attention = attention.transpose(0, 2, 1)
        places = attention @ grid(height, width)
        found = attention @ merged.reshape(count, height * width, _CHANNELS)
        overall = jnp.mean(stages[-1], (1, 2))
        x = jnp.concatenate([2 * places.reshape(count, -1), found.reshape(count, -1), overall], -1)
        x = nn.relu(
            BatchNorm(**self.norm, name="neck_bn")(nn.Dense(self.features, name="neck1")(x))
        )
        x = nn.relu(nn.Dense(self.features, name="neck2")(x))
        # The places themselves go on too: the camera is read from them directly.
        features = jnp.concatenate([x, places.reshape(count, -1)], axis=-1)
        return {"features": features, "point_logits": logits}


def grid(height: int, width: int) -> Float[Array, "p 2"]:
    """Middles of the cells of a map, row by row, (x, y) in units of [-1, 1] of the image."""
    y = (jnp.arange(height) + 0.5) / height * 2 - 1
    x = (jnp.arange(width) + 0.5) / width * 2 - 1
    return jnp.stack([jnp.tile(x, height), jnp.repeat(y, width)], axis=-1)
