"""Pickles of arrays read as data: no code of theirs runs, no class of theirs is imported.

The stack machine (`pickle_machine`) turns the bytes into containers and inert recipes; the
builders here and in `pickled_arrays` turn the known recipes (NumPy arrays, SciPy sparse matrices,
chumpy arrays, plain containers) into NumPy arrays and Python values. Anything else is refused.
"""

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.pickle_machine import ForbiddenGlobal, Global, PickleFault, Recipe, parse
from jaxrecon.io.pickled_arrays import ARRAY_RECIPES

# Builds the value of a recipe. The second argument resolves what the recipe holds.
Builder = Callable[[Recipe, Callable[[Any], Any]], Any]

_BUSY = object()


@dataclass(frozen=True)
class Opaque:
    """What is left of an object of an unknown class, where the caller agreed to pass over those."""

    made_of: str


def read_pickle(path: str | os.PathLike[str], what: str = "pickle", remedy: str = "") -> Any:
    """The content of a pickle of arrays and plain values, without running any of its code.

    Reads protocols 0 to 5, also those of Python 2 (byte strings become latin-1 text).

    Args:
      path: the file.
      what: what it should be, for error messages.
      remedy: where such a file comes from, for error messages.

    Returns:
      nested dict, list, tuple, set, str, numbers and NumPy arrays; SciPy sparse matrices
      (csc, csr, coo) and chumpy arrays become dense NumPy arrays.

    Raises:
      UserError: no such file, truncated or no pickle at all, or it names anything that is not
        data; the message has the file and that name.
    """
    file = existing_file(path, what, remedy)
    with explained(file, what):
        return Resolver(ARRAY_RECIPES)(parse(BytesIO(file.read_bytes()), ARRAY_RECIPES))


# What a damaged pickle makes the machine and the builders stumble over, down to absurd sizes.
_STUMBLES = (
    PickleFault,
    ValueError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    EOFError,
    OverflowError,
    MemoryError,
    RuntimeError,  # too deep, or an encrypted archive
    NotImplementedError,
    zlib.error,
)


@contextmanager
def explained(file: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Turns whatever reading a bad pickle raises into one line about `file`."""
    try:
        yield
    except UserError:
        raise
    except ForbiddenGlobal as error:
        raise UserError(
            f"refused to read {file}: it asks for {error.name}, which a {what} does not need and "
            "which could run code; get the file from its official source"
        ) from error
    except _STUMBLES as error:
        raise UserError(
            f"{file} is not a readable {what}: it is truncated, damaged or of another format "
            f"({str(error) or type(error).__name__}); get it again"
        ) from error


class Resolver:
    """Turns what `parse` returned into values: recipes become what their builders make of them.

    Objects that the pickle shares stay shared; lists and dictionaries may hold themselves.
    """

    def __init__(self, recipes: Mapping[tuple[str, str], Builder]):
        self.recipes = recipes
        self.done: dict[int, Any] = {}
        self.kept: list[Any] = []  # keeps ids from being used again while they are keys

    def __call__(self, value: Any) -> Any:
        if not isinstance(value, Recipe | dict | list | tuple | set | frozenset | Global):
            return value
        if id(value) in self.done:
            found = self.done[id(value)]
            if found is _BUSY:
                raise PickleFault("an object is made of itself")
            return found
        self.kept.append(value)
        self.done[id(value)] = _BUSY
        if isinstance(value, dict):
            filled: dict[Any, Any] = {}
            self.done[id(value)] = filled
            filled.update((self(k), self(v)) for k, v in value.items())
        elif isinstance(value, list):
            members: list[Any] = []
            self.done[id(value)] = members
            members.extend(self(v) for v in value)
        elif isinstance(value, tuple | set | frozenset):
            self.done[id(value)] = type(value)(self(v) for v in value)
        elif isinstance(value, Global):
            self.done[id(value)] = Opaque(str(value))
        else:
            build = self.recipes.get((value.made_of.module, value.made_of.name))
            self.done[id(value)] = (
                Opaque(str(value.made_of)) if build is None else build(value, self)
            )
        return self.done[id(value)]
