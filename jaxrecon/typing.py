"""Array types that public signatures share."""

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

Array = jax.Array
AnyArray = jax.Array | np.ndarray

__all__ = ["AnyArray", "Array", "Bool", "Float", "Int", "Shaped"]
