"""People as macro parameters, and their shapes (design of the open body, section 3)."""

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import factorized

from jaxrecon.bodies.open_body.generate.source import N_BODY, Source

_CHUNK = 50
_HEIGHT_SLOPES = (0.73, 1.44)  # metres per unit of the height parameter, below and above 0.5
_RACES = ("african", "asian", "caucasian")


@dataclass(frozen=True)
class People:
    """Macro parameters of N people, each (N,) in 0..1; `race` (N, 3) sums to 1."""

    male: np.ndarray
    age: np.ndarray
    muscle: np.ndarray
    weight: np.ndarray
    height: np.ndarray
    proportions: np.ndarray
    race: np.ndarray
    is_male: np.ndarray

    def __len__(self) -> int:
        return len(self.male)

    def part(self, which: slice) -> "People":
        """Some of the people."""
        return People(**{name: values[which] for name, values in vars(self).items()})


class Shapes:
    """Turns macro parameters into meshes: base + coefficients x targets, one matrix product."""

    def __init__(self, source: Source):
        self.source = source
        folder = "macrodetails/"
        names = source.target_names("macrodetails")
        self.names = [n for n in names if not {"baby", "child"} & set(_words(n))]
        # In float64: float32 products differ by the number of BLAS threads, and a last bit can
        # change which edge is collapsed first.
        moved = source.targets([folder + n for n in self.names])
        self.targets = moved.reshape(len(self.names), -1).astype(np.float64)
        self.base = source.vertices.ravel()

    def meshes(self, people: People, extra: np.ndarray | None = None) -> np.ndarray:
        """(N, 19158, 3) float32 metres; `extra` (N, 19158, 3) is added."""
        coefficients = self.coefficients(people)
        out = np.empty((len(people), len(self.base)), np.float32)
        for start in range(0, len(people), _CHUNK):
            part = slice(start, start + _CHUNK)
            out[part] = self.base + coefficients[part] @ self.targets
        shaped = out.reshape(len(people), -1, 3)
        return shaped if extra is None else shaped + extra

    def coefficients(self, people: People) -> np.ndarray:
        """(N, targets): the product of the weights of the words in a target's name."""
        word = _word_weights(people)
        one = np.ones(len(people))
        columns = []
        for name in self.names:
            column = one
            for w in _words(name):
                column = column * word.get(w, one)
            columns.append(column)
        return np.stack(columns, 1)

    def with_stature(self, people: People, stature: np.ndarray) -> People:
        """The same people with the height parameter that gives each the wanted stature (N,)."""
        rows = self._extreme_vertices(people)
        columns = (3 * rows + 1).ravel()
        base, targets = self.base[columns], self.targets[:, columns]
        height = people.height
        for _ in range(4):
            people = People(**(people.__dict__ | {"height": height}))
            y = base + self.coefficients(people) @ targets
            missing = stature - (y.max(1) - y.min(1))
            height = height + missing / np.where(height < 0.5, *_HEIGHT_SLOPES)
        return People(**(people.__dict__ | {"height": np.clip(height, 0, 1)}))

    def _extreme_vertices(self, people: People) -> np.ndarray:
        """The highest and lowest body vertices: the only ones that stature depends on."""
        y = self.source.vertices[:N_BODY, 1]
        order = np.argsort(y, kind="stable")
        return np.concatenate([order[:130], order[-130:]])


def adults(shapes: Shapes, count: int, seed: int) -> People:
    """Grown people, women and men in turn, with typical statures and weights.

    Drawn quantity after quantity, each for all people, in the order of the code.
    """
    rng = np.random.default_rng(seed)
    is_male = np.arange(count) % 2 == 1
    stature = np.where(is_male, 1.76, 1.63)
    stature += np.where(is_male, 0.07, 0.065) * rng.normal(size=count)
    off_pole = np.abs(rng.normal(0, 0.12, count))
    age = np.maximum(0.5, 0.5 + (rng.uniform(18, 80, count) - 25) / 130)
    z1, z2 = rng.normal(size=count), rng.normal(size=count)
    # MakeHuman's average is slim: hence a mean weight above 0.5.
    people = People(
        male=np.clip(np.where(is_male, 1 - off_pole, off_pole), 0, 1),
        age=np.clip(age, 0, 1),
        muscle=np.clip(0.42 + 0.2 * (-0.3 * z1 + 0.954 * z2), 0, 1),
        weight=np.clip(0.66 + 0.26 * z1, 0, 1),
        height=np.full(count, 0.5),
        proportions=np.clip(rng.normal(0.5, 0.2, count), 0, 1),
        race=rng.dirichlet((1, 1, 1), count),
        is_male=is_male,
    )
    return shapes.with_stature(people, stature)


def _words(name: str) -> list[str]:
    return name.replace("/", "-").split("-")


def _word_weights(people: People) -> dict[str, np.ndarray]:
    def tent(value: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        low, high = np.clip(1 - 2 * value, 0, 1), np.clip(2 * value - 1, 0, 1)
        return low, 1 - low - high, high

    word = {"female": 1 - people.male, "male": people.male}
    word |= {"young": np.clip(2 - 2 * people.age, 0, 1), "old": np.clip(2 * people.age - 1, 0, 1)}
    for what, value in (("muscle", people.muscle), ("weight", people.weight)):
        word |= dict(zip((f"min{what}", f"average{what}", f"max{what}"), tent(value)))
    word["minheight"], _, word["maxheight"] = tent(people.height)
    word["uncommonproportions"], _, word["idealproportions"] = tent(people.proportions)
    return word | {race: people.race[:, i] for i, race in enumerate(_RACES)}


class ModestyFill:
    """Replaces the tips of the breasts by a smooth fill from around: a fixed linear operator."""

    def __init__(self, source: Source):
        tip = np.linalg.norm(source.targets(["breast/breast-point-incr"])[0], axis=1)[:N_BODY]
        self.inside = np.flatnonzero(tip > 0.3 * tip.max())
        quads = source.quads
        edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
        edges = np.unique(np.sort(edges, 1), axis=0)
        ones = np.ones(len(edges))
        graph = sparse.coo_matrix((ones, edges.T), shape=(N_BODY, N_BODY))
        graph = (graph + graph.T).tocsr()
        degree = np.maximum(np.asarray(graph.sum(1)).ravel(), 1)
        laplacian = sparse.eye(N_BODY) - sparse.diags(1 / degree) @ graph
        bilaplacian = (laplacian @ laplacian).tocsc()
        outside = np.setdiff1d(np.arange(N_BODY), self.inside)
        coupling = bilaplacian[self.inside][:, outside].tocsc()
        used = np.flatnonzero(np.diff(coupling.indptr))
        self.around = outside[used]
        solve = factorized(bilaplacian[self.inside][:, self.inside].tocsc())
        right = -coupling[:, used].toarray()
        self.operator = np.stack([solve(column) for column in right.T], 1)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """`values` (..., vertices, channels) with the rows inside the region replaced, in place."""
        filled = self.operator @ values[..., self.around, :].astype(np.float64)
        values[..., self.inside, :] = filled
        return values
