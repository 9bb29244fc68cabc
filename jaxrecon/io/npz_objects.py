"""NumPy archives that hold pickled objects (VideoPose3D's), read without running their code."""

import os
import zipfile
from io import BytesIO
from typing import Any

import numpy as np
from numpy.lib import format as npy

from jaxrecon.errors import UserError
from jaxrecon.io.files import existing_file
from jaxrecon.io.pickle_machine import PickleFault, parse
from jaxrecon.io.pickled_arrays import ARRAY_RECIPES
from jaxrecon.io.pickles import Resolver, explained


def read_npz(
    path: str | os.PathLike[str], what: str = "NumPy archive", remedy: str = ""
) -> dict[str, Any]:
    """The entries of a .npz; 0-d arrays of objects become the object, dictionaries and all.

    Args:
      what, remedy: for error messages, see `io.files.existing_file`.

    Raises:
      UserError: no such file, no archive, truncated, or it asks for code.
    """
    file = existing_file(path, what, remedy)
    try:
        with zipfile.ZipFile(file) as archive, explained(file, what):
            return {
                name.removesuffix(".npy"): _read_entry(archive.read(name))
                for name in archive.namelist()
            }
    except zipfile.BadZipFile as error:
        raise UserError(f"{file} is not a readable {what} ({error}); get it again") from error


def _read_entry(data: bytes) -> Any:
    stream = BytesIO(data)
    version = npy.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = npy.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = npy.read_array_header_2_0(stream)
    else:
        raise PickleFault(f"NumPy format {version} is not supported")
    if not dtype.hasobject:
        stream.seek(0)
        return npy.read_array(stream, allow_pickle=False)
    array = Resolver(ARRAY_RECIPES)(parse(stream, ARRAY_RECIPES))
    if not isinstance(array, np.ndarray) or array.shape != shape:
        raise PickleFault("an array of objects is not what its header says")
    return array.item() if array.ndim == 0 else array
