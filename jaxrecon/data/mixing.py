"""Training on several data sets at once, in fixed proportions."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate

from jaxrecon.data.crops import Number
from jaxrecon.errors import UserError


@dataclass(frozen=True)
class Mixture:
    """Data sets and how often each is drawn.

    `names` and `lengths` go together; `partition` holds the cumulative probabilities.
    The mixture is as long as the longest of them.
    """

    names: tuple[str, ...]
    lengths: tuple[int, ...]
    partition: tuple[float, ...]

    def __len__(self) -> int:
        return max(self.lengths)

    def locate(self, index: int, p: float) -> tuple[int, int]:
        """(which data set, which of its items) for item `index` and a uniform draw p in [0, 1).

        Where rounding leaves the last cumulative value below p, the last data set serves (the
        published loader returns nothing there).
        """
        which = min(bisect_left(self.partition, p), len(self.partition) - 1)
        return which, index % self.lengths[which]


def mixture(lengths: Mapping[str, int], weights: Mapping[str, Number] | None = None) -> Mixture:
    """A mixture with the given weights, or in proportion to the lengths.

    Raises UserError if a data set is empty, unknown, or a weight is not positive.
    """
    if not lengths:
        raise UserError("mixture: no data set was given")
    weights = dict(lengths) if weights is None else dict(weights)
    if set(weights) != set(lengths):
        odd = ", ".join(sorted(set(weights) ^ set(lengths)))
        raise UserError(f"mixture: data sets and weights do not match: {odd}")
    for name in lengths:
        if lengths[name] < 1:
            raise UserError(f"mixture: data set {name} is empty; build it or leave it out")
        if not weights[name] > 0:
            raise UserError(f"mixture: the weight of {name} is {weights[name]}; it must be above 0")
    total = sum(weights[name] for name in lengths)
    shares = [weights[name] / total for name in lengths]
    return Mixture(tuple(lengths), tuple(lengths.values()), tuple(accumulate(shares)))


def published_mixture(lengths: Mapping[str, int], with_3dpw: bool) -> Mixture:
    """The two mixtures of Meta-HMR's training (spec, section 5.4).

    `lengths` has h36m, coco, mpii, mpi_inf_3dhp and, if `with_3dpw`, 3dpw. COCO and MPII share
    0.3 by their lengths.
    """
    names = ["h36m", "coco", "mpii", "mpi_inf_3dhp"] + (["3dpw"] if with_3dpw else [])
    missing = [name for name in names if name not in lengths]
    if missing:
        raise UserError(
            f"the published mixture also needs the data sets {', '.join(missing)}; "
            "prepare them or set a mixture of your own"
        )
    in_the_wild = lengths["coco"] + lengths["mpii"]
    coco, mpii = (0.3 * lengths[name] / in_the_wild for name in ("coco", "mpii"))
    shares = [0.4, coco, mpii, 0.1, 0.2] if with_3dpw else [0.5, coco, mpii, 0.2]
    return Mixture(tuple(names), tuple(lengths[name] for name in names), tuple(accumulate(shares)))
