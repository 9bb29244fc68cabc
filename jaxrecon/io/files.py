"""Opening what the user named, with one clear line when it cannot be opened."""

import os
from pathlib import Path

from jaxrecon.errors import UserError


def existing_file(path: str | os.PathLike[str], what: str, remedy: str = "") -> Path:
    """`path`, once it is known to be a readable, non-empty file.

    Args:
      what: what the file should be, for the message: "image", "body model file".
      remedy: where such a file comes from or what to do, added to the message if it is absent.

    Raises:
      UserError: there is nothing at `path`, it is a folder, unreadable, or empty.
    """
    target = Path(path)
    hint = f"; {remedy}" if remedy else ""
    if target.is_dir():
        raise UserError(f"{target} is a folder, not {_article(what)}; give the file itself")
    if not target.exists():
        raise UserError(f"no such {what}: {target}{hint or '; check the path'}")
    if not os.access(target, os.R_OK):
        raise UserError(f"no permission to read the {what} {target}")
    if target.stat().st_size == 0:
        raise UserError(f"the {what} {target} is empty (0 bytes); get or write it again{hint}")
    return target


def _article(what: str) -> str:
    return ("an " if what[0] in "aeioAEIO" else "a ") + what
