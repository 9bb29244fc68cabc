"""The body and the hand that ship with the package: CC0 data in the SMPL / MANO file layout.

`assets/README.md` says where they come from; `generate` makes them again from the source.
"""

from pathlib import Path


def assets_path() -> Path:
    """The folder of the shipped assets: models, licence and provenance."""
    return Path(__file__).resolve().parent / "assets"


def body_file() -> Path:
    """The open body, 7009 vertices and 24 joints, in the layout of an SMPL file."""
    return assets_path() / "open_body.npz"


def hand_file() -> Path:
    """The open right hand, 900 vertices and 16 joints, in the layout of a MANO file."""
    return assets_path() / "open_hand_right.npz"
