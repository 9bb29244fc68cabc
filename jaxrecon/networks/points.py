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
SPOT = 0.6  # standard deviation, in cells, of the spot that a map is taught around its point


class PointLifter(nn.Module):
    """Places of joints, and how sure each is, to features of the pose they show.

    It sees no pixel, so bodies that no one ever photographed teach it as well (`systems.meta_hmr.
    lifting`). Residual layers after Martinez et al. 2017, "A simple yet effective baseline".

    Attributes:
        features: Channels that come out.
        blocks: Residual blocks of two layers.
    """

    features: int
    blocks: int = 2

    @nn.compact
    def __call__(
        self, places: Float[AnyArray, "b p 2"], spread: Float[AnyArray, "b p"]
    ) -> Float[Array, "b c"]:
        """Args:
        places: in units of [-1, 1] of the image.
        spread: standard deviation of each, in the same units.
        """
        known = jnp.concatenate([jnp.asarray(places), 2 * jnp.asarray(spread)[..., None]], -1)
        x = nn.relu(nn.Dense(self.features, name="first")(known.reshape(len(known), -1)))
        for i in range(self.blocks):
            y = nn.relu(nn.LayerNorm(name=f"norm{i}_0")(x))
            y = nn.Dense(self.features, name=f"dense{i}_0")(y)
            y = nn.relu(nn.LayerNorm(name=f"norm{i}_1")(y))
            x = x + nn.Dense(self.features, name=f"dense{i}_1")(y)
        return x


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
        """`features` (B, C), and `point_logits` (B, 2h, 2w, points): four to a cell of the first.

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

        # Four logits for each cell: a joint is found more closely than the maps are fine.
        finer = nn.Dense(4 * self.points, name="maps")(merged)
        logits = finer.reshape(count, height, width, 2, 2, self.points).transpose(0, 1, 3, 2, 4, 5)
        logits = logits.reshape(count, 2 * height, 2 * width, self.points)
        attention = nn.softmax(logits.reshape(count, -1, self.points), axis=1)
        attention = attention.transpose(0, 2, 1)
        places = attention @ grid(2 * height, 2 * width)
        lifted = PointLifter(self.features, name="lifter")(
            places, place_spread(attention, places, 2 * height, 2 * width)
        )
        # What is found there, and overall, says what points cannot: what is near and what is far.
        cells = attention.reshape(count, self.points, height, 2, width, 2).sum((3, 5))
        found = cells.reshape(count, self.points, -1) @ merged.reshape(count, -1, _CHANNELS)
        overall = jnp.mean(stages[-1], (1, 2))
        x = jnp.concatenate([found.reshape(count, -1), overall], -1)
        x = nn.relu(
            BatchNorm(**self.norm, name="neck_bn")(nn.Dense(self.features, name="neck1")(x))
        )
        x = lifted + nn.Dense(self.features, name="neck2")(x)
        # The places themselves go on too: the camera is read from them directly.
        features = jnp.concatenate([x, places.reshape(count, -1)], axis=-1)
        return {"features": features, "point_logits": logits}


def place_spread(
    attention: Float[AnyArray, "b j p"], places: Float[AnyArray, "b j 2"], height: int, width: int
) -> Float[Array, "b j"]:
    """How far a point may be from its place: the deviation of its map beyond that of a spot.

    Maps are taught to be spots (`losses.point_loss`), blurred by what they do not know.
    """
    square = jnp.asarray(attention) @ grid(height, width) ** 2 - jnp.asarray(places) ** 2
    spot = (SPOT * jnp.asarray([2.0 / width, 2.0 / height])) ** 2
    # Rounded maps can be a little narrower than a spot; the floor keeps the gradient finite.
    return jnp.sqrt(jnp.maximum(jnp.mean(square - spot, axis=-1), 1e-4))


def grid(height: int, width: int) -> Float[Array, "p 2"]:
    """Middles of the cells of a map, row by row, (x, y) in units of [-1, 1] of the image."""
    y = (jnp.arange(height) + 0.5) / height * 2 - 1
    x = (jnp.arange(width) + 0.5) / width * 2 - 1
    return jnp.stack([jnp.tile(x, height), jnp.repeat(y, width)], axis=-1)
