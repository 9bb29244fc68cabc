"""Records -> crops -> batches: endless and resumable for training, once through for evaluation.

Everything about a batch follows from its position alone: the order of an epoch from (seed, epoch),
the random numbers of an example from (seed, epoch, place in the epoch). So threads, worker
processes, several hosts, and a run that was cut and resumed all give the same batches, and the
whole state of an iterator is one number.
"""

import random as python_random
import struct
import threading
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from jaxrecon.data.augment import NO_AUGMENTATION, AugmentationConfig, draw_augmentation
from jaxrecon.data.batches import BatchIterator
from jaxrecon.data.items import (
    Person,
    canonical_name,
    crop_region,
    make_item,
    person_from_record,
)
from jaxrecon.data.mixing import Mixture, mixture, published_mixture
from jaxrecon.data.occlusion import Occluder, load_occluders, make_occluders
from jaxrecon.data.sources import open_source
from jaxrecon.errors import UserError


@dataclass(frozen=True)
class DataConfig:
    """What to read and how to crop it. All fields are plain values, as in a config file."""

    datasets: tuple[str, ...] = ("open_body",)  # names, or "name/builder_config"
    split: str = "train"
    mixture: str = "lengths"  # "lengths", "weights", "published" or "published_3dpw"
    weights: tuple[float, ...] = ()  # one for each data set, for "weights"
    data_dir: str = ""  # default: see sources.default_data_dir
    height: int = 256
    width: int = 192
    box: str = "keypoints"  # or "file": the box of the record
    ignore_3d: bool = False  # hide the SMPL and 3D labels

    shuffle: bool = True  # another order in every epoch
    augment: bool = True
    flip_probability: float = 0.5
    noise: float = 0.4
    rotation: float = 30.0
    scale: float = 0.25
    upright_probability: float = 0.6
    photometric: bool = False  # also blur, compress, colour, ...
    occlusion: tuple[str, ...] = ()  # data sets to paste occluders over, or ("all",)
    occluders: str = ""  # file of RGBA cut-outs; "" makes procedural ones

    workers: int = 0  # processes; 0 uses threads
    threads: int = 0  # in each process; 0 chooses by the number of CPUs
    cache_mb: int = 1024  # decoded crop regions kept in memory; 0 keeps none

    @classmethod
    def from_config(cls, config: Any) -> "DataConfig":
        """From a `DataConfig`, dictionary or `ml_collections.ConfigDict`; unknown fields fail."""
        if isinstance(config, cls):
            return config
        values = dict(config.items())
        known = {field.name for field in fields(cls)}
        odd = sorted(set(values) - known)
        if odd:
            raise UserError(f"data config: unknown field {odd[0]}; known: {', '.join(known)}")
        for name in ("datasets", "weights", "occlusion"):
            if name in values:
                value = values[name]
                values[name] = (value,) if isinstance(value, str) else tuple(value)
        return cls(**values)

    def augmentation(self) -> AugmentationConfig:
        return AugmentationConfig(
            self.flip_probability,
            self.noise,
            self.rotation,
            self.scale,
            self.upright_probability,
            self.photometric,
        )


class Examples:
    """Persons of one or several data sets, with those met once kept in memory up to a limit."""

    def __init__(self, sources: Sequence[Any], config: DataConfig, cache_mb: int):
        self.sources, self.config = list(sources), config
        self._limit = cache_mb * 2**20
        self._clear()

    def _clear(self) -> None:
        self._kept: dict[tuple[int, int], Person] = {}
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        # A worker process fills its own cache.
        return {key: self.__dict__[key] for key in ("sources", "config", "_limit")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._clear()

    def person(self, which: int, index: int) -> Person:
        """Person `index` of data set `which`, decoded."""
        person = self._kept.get((which, index))
        if person is not None:
            return person
        config = self.config
        person = person_from_record(self.sources[which][index], config.box)
        if self._bytes < self._limit:
            margin = 1 + config.scale if config.augment else 1.0
            person = crop_region(person, config.height, config.width, margin)
            self._kept[which, index] = person
            self._bytes += person.image.nbytes + 4096
        return person


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.RandomState(_mix(seed, epoch)).permutation(count)


def _mix(*numbers: int) -> int:
    """A 32-bit seed from several numbers; nearby inputs give unrelated generators."""
    return zlib.crc32(struct.pack(f"<{len(numbers)}q", *numbers))


class _Generators(threading.local):
    """Generators of this thread: to seed one anew is a hundred times faster than to make one."""

    def __init__(self) -> None:
        self.random, self.choice = np.random.RandomState(0), python_random.Random(0)

    def seeded(self, seed: int) -> tuple[np.random.RandomState, python_random.Random]:
        self.random.seed(seed)
        self.choice.seed(seed)
        return self.random, self.choice

    def __reduce__(self) -> Any:
        return _Generators, ()


@dataclass(frozen=True)
class _Shard:
    """The part of each global batch that one host makes."""

    batch_size: int  # of all hosts together
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise UserError(
                f"batch_size {self.batch_size} is not a positive multiple of the "
                f"{self.process_count} hosts"
            )

    @property
    def local(self) -> int:
        return self.batch_size // self.process_count

    def locate(self, position: int) -> tuple[int, int]:
        """(number of the batch, place in the global batch) of this host's item `position`."""
        number, place = divmod(position, self.local)
        return number, self.process_index * self.local + place


class TrainItems:
    """Item by position in this host's endless stream of training items."""

    def __init__(
        self,
        examples: Examples,
        mix: Mixture,
        config: DataConfig,
        occluders: Sequence[Occluder],
        shard: _Shard,
        seed: int,
    ):
        self.examples, self.mix, self.config, self.seed = examples, mix, config, seed
        self.occluders, self.shard = occluders, shard
        self.batches_per_epoch = len(mix) // shard.batch_size
        if not self.batches_per_epoch:
            raise UserError(
                f"batch_size {shard.batch_size} is above the {len(mix)} examples of the data set; "
                "lower it or take more data"
            )
        self._strength = config.augmentation()
        self._occluded = frozenset(canonical_name(name) for name in config.occlusion)
        self._generators = _Generators()

    def __call__(self, position: int) -> dict[str, Any]:
        number, place = self.shard.locate(position)
        epoch, number = divmod(number, self.batches_per_epoch)
        place += number * self.shard.batch_size
        index = place
        if self.config.shuffle:
            index = int(_epoch_order(self.seed, epoch, len(self.mix))[place])
        random, choice = self._generators.seeded(_mix(self.seed, epoch, place))
        which = 0
        if len(self.mix.names) > 1:
            which, index = self.mix.locate(index, random.uniform())
        person = self.examples.person(which, index)
        draw = draw_augmentation(random, self._strength) if self.config.augment else NO_AUGMENTATION
        hidden = "all" in self._occluded or person.dataset in self._occluded
        occluders = self.occluders if hidden else None
        height, width = self.config.height, self.config.width
        item = make_item(person, height, width, draw, occluders, random, choice)
        return _without_3d(item) if self.config.ignore_3d else item


class EvalItems:
    """Item by position in this host's single pass; the last batch is filled up with copies."""

    def __init__(self, examples: Examples, config: DataConfig, shard: _Shard):
        self.examples, self.config, self.shard = examples, config, shard
        self.count = len(examples.sources[0])
        if not self.count:
            raise UserError(f"data set {config.datasets[0]!r} has no example in {config.split!r}")
        self.batches = -(-self.count // shard.batch_size)

    def __call__(self, position: int) -> dict[str, Any]:
        number, place = self.shard.locate(position)
        index = number * self.shard.batch_size + place
        valid = index < self.count
        index = min(index, self.count - 1)
        person = self.examples.person(0, index)
        item = make_item(person, self.config.height, self.config.width)
        return item | {"valid": valid, "index": index}


def _without_3d(item: dict[str, Any]) -> dict[str, Any]:
    return item | {"has_smpl": 0, "has_joints3d": 0}


def open_sources(config: DataConfig) -> list[Any]:
    """The record sources of a config, built at first use."""
    sources = []
    for name in config.datasets:
        name, _, builder_config = name.partition("/")
        extra = {"config": builder_config} if builder_config else {}
        sources.append(open_source(name, config.split, config.data_dir or None, **extra))
    return sources


def _mixture(config: DataConfig, sources: Sequence[Any]) -> tuple[Mixture, list[Any]]:
    """The mixture that a config asks for, and the sources in its order."""
    # The published mixtures know their data sets by name, without any builder config.
    published = config.mixture in ("published", "published_3dpw")
    names = [
        canonical_name(name.partition("/")[0]) if published else name for name in config.datasets
    ]
    if len(set(names)) < len(names):
        raise UserError(f"data config: a data set is named twice in {', '.join(config.datasets)}")
    by_name = dict(zip(names, sources))
    lengths = {name: len(source) for name, source in by_name.items()}
    if published:
        mix = published_mixture(lengths, with_3dpw=config.mixture == "published_3dpw")
    elif config.mixture == "lengths":
        mix = mixture(lengths)
    elif config.mixture == "weights":
        if len(config.weights) != len(names):
            raise UserError(
                f"data config: {len(config.weights)} weights for {len(names)} data sets"
            )
        mix = mixture(lengths, dict(zip(names, config.weights)))
    else:
        raise UserError(
            f"data config: mixture {config.mixture!r} is unknown; choose lengths, weights, "
            "published or published_3dpw"
        )
    return mix, [by_name[name] for name in mix.names]


def train_batches(
    config: Any,
    batch_size: int,
    seed: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    sources: Sequence[Any] | None = None,
) -> BatchIterator:
    """Endless shuffled, augmented batches of `batch_size // process_count` examples.

    `config`: a `DataConfig` or its fields. `batch_size` counts all hosts; each host makes its own
    part of the same global batch. An epoch is the longest data set, the last partial batch
    dropped. `sources` replaces the data sets of the config by any sequences of records.
    Raises UserError for unknown data sets, fields or mixtures, and a batch above the data set.
    """
    config = DataConfig.from_config(config)
    sources = open_sources(config) if sources is None else sources
    shard = _Shard(batch_size, process_index, process_count)
    occluders: list[Occluder] = []
    if config.occlusion:
        occluders = load_occluders(config.occluders) if config.occluders else make_occluders()
    cache_mb = config.cache_mb // max(1, config.workers)
    mix, sources = _mixture(config, sources)
    items = TrainItems(Examples(sources, config, cache_mb), mix, config, occluders, shard, seed)
    return BatchIterator(items, shard.local, None, config.workers, config.threads)


def eval_batches(
    config: Any,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    sources: Sequence[Any] | None = None,
) -> BatchIterator:
    """One pass over one data set in its own order, without augmentation.

    All batches have the same size: the last is filled up with copies of the last example, marked
    by `valid` (B,) bool; `index` (B,) int32 is the place in the data set. `len` gives the number
    of batches. Arguments and errors as `train_batches`.
    """
    config = DataConfig.from_config(config)
    if len(config.datasets) != 1:
        raise UserError(f"evaluation takes one data set, not {', '.join(config.datasets)}")
    sources = open_sources(config) if sources is None else sources
    shard = _Shard(batch_size, process_index, process_count)
    items = EvalItems(Examples(sources, config, 0), config, shard)
    return BatchIterator(items, shard.local, items.batches, config.workers, config.threads)
