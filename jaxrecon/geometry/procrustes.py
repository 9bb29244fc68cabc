"""Orthogonal Procrustes: the rotation nearest to a matrix, and similarity alignment.

The rotation R that maximises trace(R^T M) over proper rotations is U diag(1, 1, det(UV^T)) V^T
for M = U S V^T (Schoenemann 1966, Kabsch 1976, Umeyama 1991). Two ways lead there: LAPACK's
singular value decomposition, and one-sided Jacobi rotations written elementwise over the whole
batch, which XLA vectorises. Neither is ever differentiated: the derivative follows from the
optimality condition and is finite where that of a singular value decomposition is not.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxrecon.geometry.rotations import skew
from jaxrecon.typing import AnyArray, Array, Float

Method = Literal["auto", "svd", "fast"]

_SWEEPS = {"float32": 5, "float64": 7}


def orthogonal_procrustes_rotation(
    m: Float[AnyArray, "*b 3 3"], method: Method = "auto"
) -> Float[Array, "*b 3 3"]:
    """The rotation R (det +1) that maximises trace(R^T m): the one nearest to `m`.

    Differentiable in every order. Where the rotation is not unique (rank below two, or a
    reflection whose two smallest singular values are equal) one of the best is returned and the
    derivative along the undetermined direction is zero; close to there it is bounded.

    Args:
        m: Any matrices; the zero matrix gives the identity.
        method: "svd" uses LAPACK; "fast" uses elementwise Jacobi rotations, ten times faster
            for large batches on CPU; "auto" takes "fast" for float32 and "svd" for float64.
    """
    m = jnp.asarray(m)
    if jnp.finfo(m.dtype).bits < 32:
        return orthogonal_procrustes_rotation(m.astype(jnp.float32), method).astype(m.dtype)
    if method == "auto":
        method = "fast" if m.dtype == jnp.float32 else "svd"
    if method not in ("fast", "svd"):
        raise ValueError(f"method is {method!r}; choose auto, svd or fast")
    return _rotation_fast(m)[0] if method == "fast" else _rotation_svd(m)[0]


def nearest_orthogonal(
    m: Float[AnyArray, "*b 3 3"],
) -> tuple[Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """The orthogonal matrix U V^T nearest to m = U S V^T, reflections allowed, and S (sorted).

    Not differentiated: the result is a constant. Where `m` has rank below three one of the
    nearest is returned.
    """
    m = jax.lax.stop_gradient(jnp.asarray(m))
    factors = _factor_fast(m) if m.dtype == jnp.float32 else _factor_svd(m)
    # A negative last value says that the nearest rotation is not the nearest orthogonal matrix,
    # which turns that axis round.
    last = factors.basis[..., :, 2]
    turned = factors.rotation - 2 * _matmul(
        _matmul(factors.rotation, last[..., None]), last[..., None, :]
    )
    reflected = factors.values[..., 2:, None] < 0
    return jnp.where(reflected, turned, factors.rotation), jnp.abs(factors.values)


class _Factors(NamedTuple):
    """R, and the symmetric R^T M = V diag(values) V^T; the last value may be negative."""

    rotation: Array
    basis: Array
    values: Array


def _factor_svd(m: Array) -> _Factors:
    u, values, vt = jnp.linalg.svd(m)
    sign = jnp.sign(jnp.linalg.det(u) * jnp.linalg.det(vt))
    flip = jnp.ones_like(values).at[..., 2].set(sign)
    rotation = _matmul(u * flip[..., None, :], vt)
    return _Factors(rotation, jnp.swapaxes(vt, -1, -2), values * flip)


def _factor_fast(m: Array) -> _Factors:
    """One-sided Jacobi (Hestenes 1958): turn the columns of M until they are orthogonal.

    A column and its row of V travel together as one (6, n) array, so that a rotation is two
    multiply-adds over contiguous memory. U and V are completed by cross products from their
    two leading columns, which makes det(R) = +1 without a case distinction.
    """
    flat = jnp.moveaxis(m.reshape(-1, 3, 3), 0, -1)
    size = jnp.abs(flat).max((0, 1))
    scaled = flat / jnp.where(size > 0, size, 1)
    eye = jnp.broadcast_to(jnp.eye(3, dtype=m.dtype)[..., None], scaled.shape)
    x, y, z = (jnp.concatenate([scaled[:, j], eye[:, j]]) for j in range(3))

    def sweep(_, columns):
        x, y, z = columns
        x, y = _orthogonalise(x, y)
        x, z = _orthogonalise(x, z)
        y, z = _orthogonalise(y, z)
        return x, y, z

    x, y, z = lax.fori_loop(0, _SWEEPS[m.dtype.name], sweep, (x, y, z))
    x, y = _longer_first(x, y)
    x, z = _longer_first(x, z)
    y, z = _longer_first(y, z)

    v0 = _unit(x[3:], x[3:])
    v1 = _unit(_reject(y[3:], v0), y[3:])
    v2 = jnp.cross(v0, v1, axis=0)
    u0 = _unit(x[:3], v0)
    # Without a second direction (rank one) any will do: one of V's, so that the rotation is a
    # small one. At most one of v1 and v2 can be close to u0.
    spare = _reject(v1, u0)
    spare = jnp.where(_dot(spare, spare) > 0.25, spare, _reject(v2, u0))
    second = _reject(y[:3], u0)
    tiny = 4 * jnp.finfo(m.dtype).eps
    has_second = _dot(second, second) > tiny**2 * _dot(x[:3], x[:3])
    second = jnp.where(has_second, second, spare)
    u1 = _unit(_reject(_unit(second, second), u0), second)
    u2 = jnp.cross(u0, u1, axis=0)

    rotation = u0[:, None] * v0 + u1[:, None] * v1 + u2[:, None] * v2
    values = jnp.stack([_dot(x[:3], u0), _dot(y[:3], u1), _dot(_times(scaled, v2), u2)]) * size
    basis = jnp.stack([v0, v1, v2], 1)
    return _Factors(
        jnp.moveaxis(rotation, -1, 0).reshape(m.shape),
        jnp.moveaxis(basis, -1, 0).reshape(m.shape),
        values.T.reshape(m.shape[:-1]),
    )


def _orthogonalise(p: Array, q: Array) -> tuple[Array, Array]:
    """Rotate two columns (first three rows of each) by the angle that makes them orthogonal."""
    difference = _dot(q[:3], q[:3]) - _dot(p[:3], p[:3])
    twice = 2 * _dot(p[:3], q[:3])
    below = jnp.abs(difference) + jnp.sqrt(difference * difference + twice * twice)
    tangent = jnp.where(difference < 0, -twice, twice) / jnp.where(below > 0, below, 1)
    cosine = lax.rsqrt(1 + tangent * tangent)
    sine = cosine * tangent
    return cosine * p - sine * q, sine * p + cosine * q


def _longer_first(p: Array, q: Array) -> tuple[Array, Array]:
    ordered = _dot(p[:3], p[:3]) >= _dot(q[:3], q[:3])
    return jnp.where(ordered, p, q), jnp.where(ordered, q, p)


def _dot(a: Array, b: Array) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _times(matrix: Array, vector: Array) -> Array:
    return matrix[:, 0] * vector[0] + matrix[:, 1] * vector[1] + matrix[:, 2] * vector[2]


def _reject(a: Array, unit: Array) -> Array:
    """What of `a` stands orthogonal to a unit vector."""
    return a - _dot(a, unit) * unit


def _unit(a: Array, instead: Array) -> Array:
    """`a` at length one; `instead` where `a` is zero."""
    square = _dot(a, a)
    return jnp.where(square > 0, a * lax.rsqrt(jnp.where(square > 0, square, 1)), instead)


@jax.custom_jvp
def _rotation_svd(m: Array) -> _Factors:
    return _factor_svd(m)


@jax.custom_jvp
def _rotation_fast(m: Array) -> _Factors:
    return _factor_fast(m)


def _rotation_jvp(rotation_of, primals, tangents):
    """dR = R [w]x where (tr(S) I - S) w = vee(R^T dM - dM^T R) and S = R^T M.

    It is the derivative of the condition that S be symmetric. Only R carries a derivative of
    its own; V and the values merely say how to solve for w, so their tangents are zero.
    """
    (m,), (dm,) = primals, tangents
    factors = rotation_of(m)
    r, v, values = factors
    rt = jnp.swapaxes(r, -1, -2)
    s = _matmul(rt, m)
    s = 0.5 * (s + jnp.swapaxes(s, -1, -2))
    turn = _matmul(rt, dm)
    trace = jnp.trace(s, axis1=-2, axis2=-1)[..., None, None]
    matrix = trace * jnp.eye(3, dtype=m.dtype) - s
    inverse = _inverse(matrix, _bounded_inverse(v, values))
    w = _matmul(inverse, _vee(turn - jnp.swapaxes(turn, -1, -2))[..., None])[..., 0]
    dr = _matmul(r, skew(w))
    return factors, _Factors(dr, jnp.zeros_like(v), jnp.zeros_like(values))


@_rotation_svd.defjvp
def _rotation_svd_jvp(primals, tangents):
    return _rotation_jvp(_rotation_svd, primals, tangents)


@_rotation_fast.defjvp
def _rotation_fast_jvp(primals, tangents):
    return _rotation_jvp(_rotation_fast, primals, tangents)


def _bounded_inverse(v: Array, values: Array) -> Array:
    """V diag(a / (a^2 + tiny^2)) V^T for the eigenvalues a of tr(S) I - S: zero where a is."""
    largest = jnp.abs(values).max(-1, keepdims=True)
    largest = jnp.where(largest > 0, largest, 1)
    a = (values.sum(-1, keepdims=True) - values) / largest
    inverse = a / (a * a + float(jnp.finfo(v.dtype).eps) ** 1.4) / largest
    return _matmul(v * inverse[..., None, :], jnp.swapaxes(v, -1, -2))


@jax.custom_jvp
def _inverse(matrix: Array, value: Array) -> Array:
    """The inverse of `matrix`, whose value is known; only its derivative is left to say."""
    del matrix
    return value


@_inverse.defjvp
def _inverse_jvp(primals, tangents):
    inverse = _inverse(*primals)
    return inverse, -_matmul(inverse, _matmul(tangents[0], inverse))


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)


def _vee(m: Array) -> Array:
    return jnp.stack([m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]], -1)


def similarity_transform(
    source: Float[AnyArray, "*b n 3"],
    target: Float[AnyArray, "*b n 3"],
    weights: Float[AnyArray, "*b n"] | None = None,
    method: Method = "auto",
) -> tuple[Float[Array, "*b"], Float[Array, "*b 3 3"], Float[Array, "*b 3"]]:
    """Scale, rotation and translation that carry `source` nearest to `target`.

    Minimises sum_n w_n |scale R source_n + translation - target_n|^2 (Umeyama 1991). A source
    whose points all coincide keeps scale one.

    Args:
        source, target: Points, any unit.
        weights: Not negative; all ones if absent. A missing point has weight zero, and its
            coordinates do not matter as long as they are finite.

    Returns:
        (scale, rotation, translation): `scale * source @ R^T + translation` lies on `target`.
    """
    source, target = jnp.asarray(source), jnp.asarray(target)
    w = jnp.ones(source.shape[:-1], source.dtype) if weights is None else jnp.asarray(weights)
    total = w.sum(-1, keepdims=True)
    w = (w / jnp.where(total > 0, total, 1))[..., None]
    source_mean = (w * source).sum(-2, keepdims=True)
    target_mean = (w * target).sum(-2, keepdims=True)
    a, b = source - source_mean, target - target_mean
    covariance = _matmul(jnp.swapaxes(w * b, -1, -2), a)
    rotation = orthogonal_procrustes_rotation(covariance, method)
    spread = (w * a * a).sum((-2, -1))
    scale = jnp.where(
        spread > 0, (rotation * covariance).sum((-2, -1)) / jnp.where(spread > 0, spread, 1), 1
    )
    moved = scale[..., None] * _matmul(rotation, source_mean[..., 0, :, None])[..., 0]
    return scale, rotation, target_mean[..., 0, :] - moved


def similarity_align(
    source: Float[AnyArray, "*b n 3"],
    target: Float[AnyArray, "*b n 3"],
    weights: Float[AnyArray, "*b n"] | None = None,
    method: Method = "auto",
) -> Float[Array, "*b n 3"]:
    """`source` after the similarity transform that carries it nearest to `target`."""
    source = jnp.asarray(source)
    scale, rotation, translation = similarity_transform(source, target, weights, method)
    turned = _matmul(source, jnp.swapaxes(rotation, -1, -2))
    return scale[..., None, None] * turned + translation[..., None, :]
