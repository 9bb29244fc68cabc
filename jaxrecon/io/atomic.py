"""Outputs that appear whole or not at all: written beside, flushed to disk, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from jaxrecon.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A scratch path beside `path`, with the same suffix, that becomes `path` on success.

    Missing parent folders are made. When the block raises, or the process dies in it, `path` is
    as it was before: an old file stays, and no half-written one appears.

        with atomic_path("out/result.npz") as scratch:
            np.savez(scratch, **arrays)

    Raises:
      UserError: `path` is a folder, or its folder cannot be made or written.
      RuntimeError: the block ended without writing the scratch file.
    """
    target = Path(path)
    if target.is_dir():
        raise UserError(f"cannot write {target}: it is a folder; give the name of a file")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {target.parent}: {error.strerror}") from error
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {target}: no permission to write in {target.parent}")
    scratch = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.part{target.suffix}")
    try:
        yield scratch
        if not scratch.is_file():
            raise RuntimeError(f"nothing was written for {target}")
        _flush(scratch)
        os.replace(scratch, target)
    finally:
        # After the rename there is nothing left to remove.
        with suppress(FileNotFoundError):
            scratch.unlink()
    # The rename itself survives a power cut only when the folder is flushed too. Some file
    # systems (network mounts, Windows) cannot open or flush a folder; the file is whole anyway.
    with suppress(OSError):
        _flush(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as scratch:
        scratch.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def _flush(path: Path) -> None:
    # Windows flushes only descriptors that were opened for writing, and opens no folders.
    flags = os.O_RDWR if os.name == "nt" else os.O_RDONLY
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
