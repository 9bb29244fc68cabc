"""Weights of the parity networks: made from a parameter's name and shape, never stored."""

import zlib

import numpy as np


def fill(name: str, shape) -> np.ndarray:
    """The array that golden files assume for the parameter `name` of a state dict.

    Seeded by the CRC of the name. Variances and one-dimensional weights (of batch norms) are
    uniform in [0.5, 1.5), matrices and kernels normal with deviation sqrt(2 / fan-in), all else
    a tenth of a normal; counters are zero.
    """
    shape = tuple(int(n) for n in shape)
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    is_norm_weight = len(shape) < 2 and name.endswith("weight")
    if name.endswith("running_var") or is_norm_weight:
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) < 2:
        return (0.1 * draw.standard_normal(shape)).astype(np.float32)
    deviation = np.sqrt(2.0 / int(np.prod(shape[1:])))
    return (draw.standard_normal(shape) * deviation).astype(np.float32)
