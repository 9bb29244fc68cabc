"""Skeletons by name: which points are joined by something rigid."""

from jaxrecon.errors import UserError

# Human3.6M's 17 joints in the order of pictures.
BONES: dict[str, tuple[tuple[int, int], ...]] = {
    "": (),
    "h36m17": (
        (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (8, 11), (11, 12), (12, 13),
        (8, 14), (14, 15), (15, 16), (7, 8), (8, 9), (9, 10),
    ),
}  # fmt: skip


def bones_of(skeleton: str, joints: int) -> tuple[tuple[int, int], ...]:
    """The bones of a skeleton; () for "", which is points without bones.

    Raises:
        UserError: there is none of that name, or it has other joints.
    """
    if skeleton not in BONES:
        names = ", ".join(repr(name) for name in BONES)
        raise UserError(f"system.skeleton={skeleton!r} is not one of {names}")
    bones = BONES[skeleton]
    if bones and max(max(pair) for pair in bones) != joints - 1:
        raise UserError(f"system.skeleton={skeleton!r} does not have system.joints={joints}")
    return bones
