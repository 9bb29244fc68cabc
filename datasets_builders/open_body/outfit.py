"""What a person wears: drawn at random, then evaluated as colours and as offsets of the mesh."""

from dataclasses import dataclass

import numpy as np
from jaxrecon.datasets_builders.open_body.figure import (
    BODY,
    HAIR,
    HAIR_RINGS,
    SKIRT,
    SKIRT_RINGS,
    Figure,
    Landmarks,
    smoothstep,
)
from jaxrecon.datasets_builders.open_body.textures import (
    Fabric,
    Waves,
    hair_colour,
    linear,
    skin_colour,
)

TOPS = ("tshirt", "long", "tank", "jacket", "dress")
BOTTOMS = ("trousers", "shorts", "leggings", "skirt")
HEADWEAR = ("none", "cap", "hat", "helmet")


@dataclass(frozen=True)
class Outfit:
    """Choices for one person. Heights and lengths are in metres of the T-posed template."""

    top: str
    bottom: str
    headwear: str
    sleeve_x: float  # the sleeve ends at this |x|
    hem_y: float  # the top ends here
    neck_drop: float  # how far the neckline dips in front
    leg_y: float  # the trousers end here
    shoe_y: float  # the shoe ends here
    sock_y: float
    skirt_rings: int
    skirt_flare: float
    hair_rings: int
    hair_volume: float
    hair_line: float
    top_ease: float  # distance of the cloth from the skin
    leg_ease: float
    leg_flare: float
    wrinkle: float
    gloves: bool
    beard: bool
    glasses: bool
    opening: bool  # a jacket that shows the shirt
    logo: float  # side of a patch on the chest, 0 for none
    skin: np.ndarray
    hair: np.ndarray
    lips: np.ndarray
    shirt_fabric: Fabric
    inner_fabric: Fabric
    leg_fabric: Fabric
    shoe_fabric: Fabric
    head_fabric: Fabric
    folds: Waves
    fuzz: Waves


def draw_outfit(rng: np.random.Generator, marks: Landmarks) -> Outfit:
    """A person's clothes, hair and skin."""
    top = str(rng.choice(TOPS, p=[0.33, 0.28, 0.12, 0.17, 0.10]))
    bottom = str(rng.choice(BOTTOMS, p=[0.57, 0.22, 0.11, 0.10]))
    if top == "dress":
        bottom = "skirt"
    upper_arm = marks.elbow_x - marks.shoulder_x
    sleeve = {
        "tank": marks.shoulder_x - 0.02,
        "tshirt": marks.shoulder_x + upper_arm * rng.uniform(0.35, 0.95),
        "long": marks.wrist_x + rng.uniform(-0.06, 0.01),
        "jacket": marks.wrist_x + rng.uniform(-0.02, 0.02),
        "dress": rng.choice(
            [marks.shoulder_x - 0.02, marks.shoulder_x + 0.6 * upper_arm, marks.wrist_x - 0.02]
        ),
    }[top]
    thigh = marks.hip_y - marks.knee_y
    leg = {
        "trousers": marks.ankle_y + rng.choice([0.0, 0.02, 0.2], p=[0.5, 0.35, 0.15]),
        "leggings": marks.ankle_y + rng.uniform(0.0, 0.12),
        "shorts": marks.knee_y + thigh * rng.uniform(-0.1, 0.6),
        "skirt": marks.hip_y - 0.12,
    }[bottom]
    shoe = marks.ankle_y + float(rng.choice([0.01, 0.03, 0.1, 0.22], p=[0.5, 0.28, 0.12, 0.1]))
    headwear = str(rng.choice(HEADWEAR, p=[0.82, 0.09, 0.05, 0.04]))
    long_hair = rng.uniform() < (0.55 if bottom == "skirt" else 0.27)
    bald = not long_hair and rng.uniform() < 0.1
    skin = linear(skin_colour(rng))
    drop = rng.choice([-0.05, 0.0, 0.12, 0.2, 0.27], p=[0.06, 0.3, 0.22, 0.3, 0.12])
    return Outfit(
        top=top,
        bottom=bottom,
        headwear=headwear,
        sleeve_x=float(sleeve),
        hem_y=marks.waist_y - 0.01 if bottom == "skirt" else float(marks.waist_y - drop),
        neck_drop=float(rng.choice([-0.035, 0.0, 0.03, 0.08, 0.13],
                                   p=[0.12, 0.38, 0.25, 0.15, 0.1])),
        leg_y=float(leg),
        shoe_y=-np.inf if rng.uniform() < 0.07 else shoe,
        sock_y=shoe + float(rng.choice([0.0, 0.06, 0.25], p=[0.45, 0.4, 0.15])),
        skirt_rings=int(rng.integers(6, SKIRT_RINGS - 1)) if bottom == "skirt" else 0,
        skirt_flare=float(rng.uniform(0.0, 0.16)),
        hair_rings=int(rng.integers(4, HAIR_RINGS)) if long_hair else 0,
        hair_volume=0.0 if bald else float(rng.choice([0.006, 0.014, 0.03, 0.05],
                                                      p=[0.35, 0.38, 0.2, 0.07])),
        hair_line=1.0 if bald else float(rng.normal(-0.012, 0.012)),
        top_ease=float({"jacket": rng.uniform(0.014, 0.03)}.get(top, rng.uniform(0.003, 0.018))),
        leg_ease=float(0.002 if bottom == "leggings" else rng.uniform(0.004, 0.017)),
        leg_flare=float({"leggings": 0.0}.get(bottom, rng.uniform(0.0, 0.028))),
        wrinkle=float(rng.uniform(0.1, 0.5)),
        gloves=bool(rng.uniform() < 0.04),
        beard=bool(not long_hair and rng.uniform() < 0.16),
        glasses=bool(rng.uniform() < 0.1),
        opening=bool(top == "jacket" and rng.uniform() < 0.6),
        logo=float(rng.uniform(0.04, 0.11)) if rng.uniform() < 0.25 else 0.0,
        skin=skin.astype(np.float32),
        hair=linear(hair_colour(rng)).astype(np.float32),
        lips=np.clip(skin * (0.85, 0.55, 0.55), 0, 1).astype(np.float32),
        shirt_fabric=Fabric.draw(rng),
        inner_fabric=Fabric.draw(rng, plain=0.6),
        leg_fabric=Fabric.draw(rng, plain=0.8),
        shoe_fabric=Fabric.draw(rng, plain=0.7),
        head_fabric=Fabric.draw(rng, plain=0.7),
        folds=Waves.draw(rng, float(rng.uniform(18, 45)), 6),
        fuzz=Waves.draw(rng, 90.0, 6),
    )  # fmt: skip


def _regions(outfit: Outfit, marks: Landmarks, points: np.ndarray) -> dict[str, np.ndarray]:
    """Boolean masks over points of the body's skin; later names in the colouring order win."""
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    ax = np.abs(x)
    arm = (ax > marks.shoulder_x - 0.025) & (y > marks.shoulder_y - 0.14)
    head = points - marks.head.astype(np.float32)
    on_head = (y > marks.neck[1] - 0.02) & (ax < 0.12)
    neckline = marks.neck[1] - 0.012
    front = z > marks.neck[2] + 0.015
    dip = outfit.neck_drop * np.clip(1.0 - ax / 0.1, 0.0, 1.0) * front
    below_neck = (y < neckline - dip) | (arm & (ax > 0.12))
    if outfit.neck_drop < 0:  # a collar goes round the neck, below the chin
        below_neck |= (y < neckline + 0.03) & (z < marks.neck[2] + 0.07)
    top = below_neck & np.where(arm, ax < outfit.sleeve_x, y > outfit.hem_y)
    bottom = ~arm & (y < marks.waist_y) & (y > outfit.leg_y)
    # The face is what lies in front of a plane from the crown to the ears; hair is behind it.
    behind = 0.8 * head[:, 1] - 0.6 * head[:, 2]
    ear = (ax > 0.072) & (np.abs(y - marks.ears[0, 1] + 0.005) < 0.032) & (head[:, 2] > -0.045)
    hair = on_head & (behind > outfit.hair_line) & ~ear & (y > marks.neck[1] + 0.015)
    rim = {"cap": 0.03, "hat": 0.025, "helmet": 0.012, "none": np.inf}[outfit.headwear]
    cover = on_head & (head[:, 1] + 0.25 * np.minimum(head[:, 2], 0.0) > rim)
    nose = marks.nose.astype(np.float32)
    jaw = on_head & (y < nose[1] - 0.012) & (z > marks.ears[0, 2] + 0.02)
    return {
        "arm": arm,
        "top": top,
        "bottom": bottom,
        "sock": (y < outfit.sock_y) & ~arm,
        "shoe": (y < outfit.shoe_y) & ~arm,
        "sole": (y < marks.sole_y + 0.022) & np.isfinite(outfit.shoe_y),
        "hand": ax > marks.wrist_x,
        "hair": hair,
        "cover": cover,
        "beard": jaw & (y > marks.neck[1] - 0.01) & (z < nose[2] + 0.01),
        "head": on_head,
    }


def offsets(figure: Figure, outfit: Outfit) -> np.ndarray:
    """How far each vertex (V,) of the figure is moved along its normal, metres."""
    points, part = figure.canonical, figure.part
    marks = figure.landmarks
    region = _regions(outfit, marks, points)
    skin = part == BODY
    folds = outfit.folds(points)
    move = np.zeros(len(points), np.float32)

    down = np.clip((marks.hip_y - points[:, 1]) / (marks.hip_y - marks.ankle_y), 0.0, 1.0)
    legs = outfit.leg_ease * (1 + 0.35 * folds) + outfit.leg_flare * smoothstep(down, 0.3, 1.0)
    move = np.where(region["bottom"] & skin, legs, move)
    along = np.clip((np.abs(points[:, 0]) - marks.shoulder_x) / 0.4, 0.0, 1.0)
    shirt = outfit.top_ease * (1 + 0.35 * folds) * (1 - 0.45 * along)
    move = np.where(region["top"] & skin, np.maximum(shirt, move), move)
    move = np.where(region["shoe"] & skin, np.maximum(0.008, move * 0.5), move)
    volume = outfit.hair_volume * (1 + 0.25 * outfit.fuzz(points))
    behind = points[:, 2] < marks.head[2] + 0.03
    thick = volume * np.where(behind, 1.0, 0.6)
    move = np.where(region["hair"] & skin, thick, move)
    if outfit.headwear != "none":
        shell = {"cap": 0.012, "hat": 0.016, "helmet": 0.032}[outfit.headwear]
        move = np.where(region["cover"] & skin, shell, move)
        head = points - marks.head.astype(np.float32)
        rim = np.abs(head[:, 1] + 0.25 * np.minimum(head[:, 2], 0.0) - 0.04) < 0.014
        rim &= np.abs(figure.canonical_normals[:, 1]) < 0.5
        if outfit.headwear == "cap":
            rim &= head[:, 2] > 0.05
        if outfit.headwear != "helmet":
            move = np.where(region["cover"] & skin & rim, 0.06, move)
    if outfit.skirt_rings:
        below = np.maximum(marks.waist_y - points[:, 1], 0.0)
        hang = outfit.skirt_flare * below * (1 + 0.25 * folds)
        move = np.where(part == SKIRT, outfit.top_ease + hang, move)
        move = np.where(skin & region["bottom"], 0.0, move)
    if outfit.hair_rings:
        move = np.where(part == HAIR, volume - 0.008, move)
    return move.astype(np.float32)


@dataclass(frozen=True)
class Surface:
    """Optical properties of surface points."""

    albedo: np.ndarray  # (N, 3) linear
    gloss: np.ndarray  # (N,)
    relief: np.ndarray  # (N, 3) to add to the normals of the template


def paint(outfit: Outfit, marks: Landmarks, points: np.ndarray, part: np.ndarray) -> Surface:
    """Colours of points (N, 3) on the template; `part` (N,) as in the figure."""
    region = _regions(outfit, marks, points)
    x, y, z = points[:, 0], points[:, 1], points[:, 2]
    ax = np.abs(x)
    skin = part == BODY
    along = np.where(region["arm"], ax - marks.shoulder_x + 0.1, marks.shoulder_y - y)
    across = np.where(region["arm"], y - z, x + 0.6 * z)
    folds, growth = outfit.folds.with_gradient(points)

    tone = 1.0 + 0.05 * folds
    albedo = outfit.skin * tone[:, None]
    gloss = np.full(len(points), 0.35, np.float32)
    albedo = _face(outfit, marks, points, albedo)

    def lay(mask: np.ndarray, colour: np.ndarray, shine: float) -> None:
        chosen = np.flatnonzero(mask)
        albedo[chosen] = colour
        gloss[chosen] = shine

    def hairy(mask: np.ndarray, shine: float) -> None:
        chosen = np.flatnonzero(mask)
        strands = 1.0 + 0.22 * outfit.fuzz(points[chosen])
        albedo[chosen] = outfit.hair * strands[:, None]
        gloss[chosen] = shine

    def cloth(mask: np.ndarray, fabric: Fabric, shine: float = 0.08) -> None:
        chosen = np.flatnonzero(mask)
        colour = fabric(along[chosen], across[chosen], points[chosen])
        albedo[chosen] = colour * (1.0 + fabric.grain * folds[chosen])[:, None]
        gloss[chosen] = shine

    cloth(region["sock"] & skin, outfit.inner_fabric)
    cloth(region["bottom"] & skin, outfit.leg_fabric)
    cloth(region["top"] & skin, outfit.shirt_fabric)
    if outfit.opening:
        gap = region["top"] & ~region["arm"] & (ax < 0.05) & (z > marks.neck[2])
        cloth(gap & skin, outfit.inner_fabric)
    if outfit.logo:
        middle = marks.shoulder_y - 0.09
        patch = (ax < outfit.logo) & (np.abs(y - middle) < 0.6 * outfit.logo) & (z > 0.05)
        lay(patch & region["top"] & skin, outfit.shirt_fabric.colours[2], 0.1)
    belt = (np.abs(y - marks.waist_y + 0.005) < 0.016) & ~region["arm"] & ~region["top"]
    lay(belt & skin, outfit.shoe_fabric.colours[1] * 0.5, 0.2)
    cloth(region["shoe"] & skin, outfit.shoe_fabric, 0.25)
    lay(region["sole"] & skin, outfit.shoe_fabric.colours[2], 0.1)
    if outfit.gloves:
        cloth(region["hand"] & skin, outfit.inner_fabric)
    if outfit.hair_volume > 0:
        hairy(region["hair"] & skin, 0.2)
    if outfit.beard:
        hairy(region["beard"] & skin, 0.1)
        lips = (np.abs(y - marks.nose[1] + 0.032) < 0.006) & (ax < 0.022) & region["beard"]
        lay(lips & skin, outfit.lips, 0.3)
    if outfit.headwear != "none":
        cloth(region["cover"] & skin, outfit.head_fabric, 0.1)
    hem = outfit.shirt_fabric if outfit.top == "dress" else outfit.leg_fabric
    cloth(part == SKIRT, hem)
    hairy(part == HAIR, 0.2)

    covered = region["top"] | region["bottom"] | (part == SKIRT)
    bumps = np.where(covered, outfit.wrinkle, 0.0).astype(np.float32)
    bumps += np.where((part == HAIR) | (region["hair"] & skin), np.float32(0.2), 0.0)
    relief = growth * bumps[:, None]
    return Surface(np.clip(albedo, 0.004, 0.95).astype(np.float32), gloss, relief)


def _face(outfit: Outfit, marks: Landmarks, points: np.ndarray, albedo: np.ndarray) -> np.ndarray:
    """Eyes, brows, lips and cheeks: a few pixels that tell the front of a head from its back."""
    chosen = np.flatnonzero((points[:, 1] > marks.neck[1]) & (points[:, 2] > marks.ears[0, 2]))
    if chosen.size == 0:
        return albedo
    face = points[chosen]
    colour = albedo[chosen]
    side = np.abs(face[:, 0]) - marks.eyes[1, 0]
    rise = face[:, 1] - marks.eyes[0, 1]
    front = face[:, 2] > marks.eyes[0, 2] - 0.03

    def spot(mask: np.ndarray, value: np.ndarray) -> None:
        colour[mask & front] = value

    cheek = np.exp(-((side - 0.008) ** 2 + (rise + 0.045) ** 2) / 0.02**2)
    colour *= 1.0 - cheek[:, None] * np.array([0.0, 0.16, 0.14], np.float32)
    spot((side / 0.021) ** 2 + (rise / 0.012) ** 2 < 1, 0.6 * outfit.skin)
    spot((side / 0.015) ** 2 + (rise / 0.007) ** 2 < 1, np.array([0.75, 0.75, 0.74], np.float32))
    spot(side**2 + rise**2 < 0.0065**2, np.array([0.03, 0.025, 0.02], np.float32))
    brow = rise - 0.021 + 8.0 * side**2
    spot((np.abs(brow) < 0.005) & (np.abs(side) < 0.019), 0.6 * outfit.hair + 0.1 * outfit.skin)
    mouth = face[:, 1] - (marks.nose[1] - 0.032)
    spot((face[:, 0] / 0.023) ** 2 + (mouth / 0.009) ** 2 < 1, outfit.lips)
    spot((np.abs(mouth) < 0.0015) & (np.abs(face[:, 0]) < 0.02), 0.4 * outfit.lips)
    nostril = (np.abs(face[:, 0]) - 0.008) ** 2 + (face[:, 1] - marks.nose[1] + 0.011) ** 2
    spot(nostril < 0.004**2, 0.35 * outfit.skin)
    if outfit.glasses:
        lens = (side / 0.024) ** 2 + ((rise + 0.002) / 0.018) ** 2
        spot(lens < 1, np.array([0.02, 0.02, 0.025], np.float32))
        spot(
            (np.abs(rise - 0.004) < 0.003) & (np.abs(face[:, 0]) < 0.075),
            np.array([0.02] * 3, np.float32),
        )
    albedo[chosen] = colour
    return albedo
