"""From seeds to photographs: body model, rasteriser, light, lens and JPEG, one chunk at a time.

The body is posed and rasterised by the project's own JAX code; everything after it knows only
the visible pixels and is NumPy and OpenCV. The person is drawn at 1.25 times the resolution of the
photograph and then reduced, which smooths the outline.
"""

from functools import lru_cache

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxrecon.datasets_builders.open_body.figure import BODY, Figure, load_figure
from jaxrecon.datasets_builders.open_body.labels import inside, label
from jaxrecon.datasets_builders.open_body.outfit import draw_outfit, offsets, paint
from jaxrecon.datasets_builders.open_body.scenes import (
    CHUNK,
    USUAL,
    Camera,
    Stance,
    Variety,
    draw_camera,
    draw_subjects,
    image_rng,
    place,
    read_stance,
)
from jaxrecon.datasets_builders.open_body.surroundings import (
    Box,
    DrawnBox,
    Light,
    Picture,
    draw_box,
    draw_light,
    furniture,
    surround,
)
from jaxrecon.datasets_builders.open_body.textures import normalise
from scipy.spatial.transform import Rotation

from jaxrecon.bodies import BodyModel, BodyOutput, body_forward, joints49, load_body
from jaxrecon.rendering.rasterize import Fragments, count_fragments, rasterize

OVERSAMPLE = 1.25
NEUTRAL = 2
_BUDGETS = (1 << 16, 1 << 17, 1 << 18, 1 << 20, 1 << 22)
_FEWEST_JOINTS = 14  # of the 24 annotated ones inside of the image
_MOST_HIDDEN = 0.4  # share of the annotated joints that furniture may stand before


@jax.jit
def _pose(figure: BodyModel, body: BodyModel, betas, rotmats):
    """Vertices of the figure, the 24 joints and SPIN's 49 for a chunk of people."""
    output = body_forward(figure, betas, rotmats)
    count = body.v_template.shape[0]
    own = BodyOutput(output.vertices[:, :count], output.joints)
    return output.vertices, output.joints, joints49(body, own)


@lru_cache(maxsize=1)
def _bodies() -> tuple[BodyModel, BodyModel]:
    """Figure and body on the device, so that they are arguments rather than constants."""
    return jax.device_put((load_figure().body, load_body()))


def photographs(
    seed: int,
    split: str,
    chunk: int,
    longer_side: int,
    count: int = CHUNK,
    variety: Variety = USUAL,
) -> list[dict]:
    """The first `count` records of chunk number `chunk`: index chunk * CHUNK and following.

    Each is a dict of the builder's features, `image` as JPEG bytes. Depends on the arguments
    only, so any process may make any chunk.
    """
    subjects = draw_subjects(seed, split, chunk, variety)
    vertices, joints, spin = map(np.asarray, _pose(*_bodies(), subjects.betas, subjects.rotmats))
    records = []
    for i in range(count):
        index = chunk * CHUNK + i
        rng = image_rng(seed, split, index)
        record = photograph(
            rng,
            longer_side,
            vertices[i],
            joints[i],
            spin[i],
            subjects.views[i],
            subjects.rotmats[i, 0],
            variety,
        )
        pose = Rotation.from_matrix(subjects.rotmats[i]).as_rotvec()
        record.update(
            imgname=f"{split}/{index:06d}.jpg",
            pose=pose.reshape(72).astype(np.float32),
            betas=subjects.betas[i],
            has_smpl=1,
            has_joints3d=1,
            gender=NEUTRAL,
            dataset="open_body",
        )
        records.append(record)
    return records


def photograph(
    rng: np.random.Generator,
    longer_side: int,
    vertices: np.ndarray,
    joints: np.ndarray,
    spin: np.ndarray,
    view: np.ndarray,
    root: np.ndarray,
    variety: Variety = USUAL,
) -> dict:
    """One photograph and those labels that depend on its camera.

    Args:
        vertices: the figure's (V, 3) without translation, camera frame.
        joints: the body's 24 joints.  spin: SPIN's 49.
        view: world to camera (3, 3).  root: rotation of the pelvis (3, 3).
    """
    figure = load_figure()
    camera = draw_camera(rng, longer_side)
    bare = vertices[: figure.body_vertices]
    transl = place(rng, camera, bare, variety)
    if inside(camera.project(spin[25:] + transl), camera).sum() < _FEWEST_JOINTS:
        centre = 0.5 * (bare.min(0) + bare.max(0))
        transl = np.array([-centre[0], -centre[1], transl[2]], np.float32)
    stance = read_stance(view, root, bare + transl, joints + transl)
    light = draw_light(rng, stance.up)

    picture = surround(rng, camera, stance, light)
    person, depth = _person(rng, figure, camera, vertices, transl, light, longer_side)
    _ground_shadow(picture, camera, bare + transl, stance, light)
    boxes = _visible_boxes(furniture(rng, stance), camera, light, spin[25:] + transl)
    near = _compose(rng, picture, camera, boxes, person, depth)
    image = _develop(rng, picture.colour)

    pixels = camera.project(spin + transl)
    at = np.clip(pixels, 0, [camera.width - 1, camera.height - 1]).astype(int)
    hidden = near[at[:, 1], at[:, 0]] < (spin + transl)[:, 2] - 0.18
    quality = int(rng.integers(60, 96))
    done, jpeg = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    record = label(rng, spin, transl, camera, hidden)
    record.update(image=jpeg.tobytes(), focal_length=np.float32(camera.focal), transl=transl)
    return record


def _person(
    rng: np.random.Generator,
    figure: Figure,
    camera: Camera,
    vertices: np.ndarray,
    transl: np.ndarray,
    light: Light,
    longer_side: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The dressed person: premultiplied linear colour and alpha (h, w, 4), and depth (h, w)."""
    outfit = draw_outfit(rng, figure.landmarks)
    faces = figure.faces_of(outfit.skirt_rings, outfit.hair_rings)
    move = offsets(figure, outfit)
    dressed = vertices + move[:, None] * figure.normals(vertices) + transl
    normals = figure.normals(dressed).astype(np.float32)
    lit = _self_shadow(figure, dressed, light.direction)

    side = round(OVERSAMPLE * longer_side)
    screen = np.concatenate([OVERSAMPLE * camera.project(dressed), dressed[:, 2:]], -1)
    screen = screen.astype(np.float32)
    found = _rasterise(screen, faces, side)
    height, width = round(OVERSAMPLE * camera.height), round(OVERSAMPLE * camera.width)
    face = np.asarray(found.face_id)[:height, :width]
    depth = np.asarray(found.depth)[:height, :width]
    seen = face >= 0
    row, column = np.nonzero(seen)
    corners = faces[face[row, column]]
    weights = np.asarray(found.barycentric)[row, column]

    attributes = np.concatenate([figure.canonical, normals, lit[:, None]], -1)
    point = weights[:, 0:1] * attributes[corners[:, 0]]
    point += weights[:, 1:2] * attributes[corners[:, 1]]
    point += weights[:, 2:3] * attributes[corners[:, 2]]
    part = figure.part[corners[:, 0]]
    surface = paint(outfit, figure.landmarks, point[:, :3], part)
    normal = normalise(point[:, 3:6] + surface.relief)
    shade = light.shade(normal, point[:, 6])
    shade *= _occlusion(depth, seen)[:, None]
    colour = surface.albedo * shade
    half = normalise(light.direction - np.array([0.0, 0.0, 1.0], np.float32))  # the viewer is at -z
    shine = np.square(np.square(np.square(np.maximum(normal @ half, 0.0)))) ** 3 * point[:, 6]
    colour += (light.specular * surface.gloss * shine)[:, None] * light.colour

    layer = np.zeros((height, width, 4), np.float32)
    layer[row, column, :3] = colour
    layer[row, column, 3] = 1.0
    size = (camera.width, camera.height)
    layer = cv2.resize(layer, size, interpolation=cv2.INTER_AREA)
    nearest = cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST)
    return layer, nearest


def _rasterise(screen: np.ndarray, faces: np.ndarray, side: int) -> Fragments:
    """Visible faces, with the smallest budget that serves; an eighth of the faces tells which."""
    estimate = 9.5 * count_fragments(screen, faces[::8], (side, side), True)
    for budget in _BUDGETS:
        if budget < estimate:
            continue
        found = rasterize(jnp.asarray(screen), jnp.asarray(faces), (side, side), budget, True)
        if int(found.overflow) == 0:
            return found
    raise AssertionError(f"a figure needs more than {_BUDGETS[-1]} fragments")


def _self_shadow(figure: Figure, vertices: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """How much of the directed light reaches each vertex (V,): a coarse, softened depth map."""
    side = np.cross(direction, [0.0, 0.0, 1.0] if abs(direction[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    other = np.cross(direction, side)
    body = figure.part == BODY
    plane = vertices @ np.stack([side, other, direction], -1)
    cell = np.floor((plane[:, :2] - plane[:, :2].min(0)) / 0.028).astype(int)
    width = cell[:, 0].max() + 3
    key = cell[:, 0] + 1 + (cell[:, 1] + 1) * width
    nearest = np.full(width * (cell[:, 1].max() + 3), -np.inf)
    np.maximum.at(nearest, key[body], plane[body, 2])
    lit = (plane[:, 2] > nearest[key] - 0.07).astype(np.float32)
    for _ in range(2):  # soften over the neighbours
        i, j, k = figure.columns
        lit = figure.incidence @ (lit[i] + lit[j] + lit[k]) / (3.0 * figure.valence)
    return lit.astype(np.float32)


def _occlusion(depth: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Darkening (N,) of visible pixels that lie behind what is around them."""
    if not seen.any():
        return np.ones(0, np.float32)
    far = float(depth[seen].max())
    filled = np.where(seen, depth, far)
    small = cv2.resize(filled, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), 0.3 + 0.0045 * depth.shape[0])
    smooth = cv2.resize(small, depth.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return 1.0 - np.clip(4.0 * (filled - smooth)[seen], 0.0, 0.45)


def _ground_shadow(
    picture: Picture, camera: Camera, vertices: np.ndarray, stance: Stance, light: Light
) -> None:
    """Darken the floor where the body keeps the light away, and where it is close to it."""
    if not picture.floor.any():
        return
    up, height = stance.up, vertices @ stance.up - stance.ground
    steep = max(float(light.direction @ up), 0.15)
    cast = vertices - (height / steep)[:, None] * light.direction
    drop = vertices - height[:, None] * up
    direct = float(light.colour.mean())
    share = direct * steep / (direct * steep + float(light.ambient[0].mean()))
    near = height < 0.4
    shade = 1.0 - 0.95 * share * _splat(camera, cast, np.ones(len(cast)))
    shade *= 1.0 - 0.6 * _splat(camera, drop[near], 1.0 - height[near] / 0.4)
    picture.colour *= np.where(picture.floor, shade, 1.0)[..., None]


def _splat(camera: Camera, points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A soft mask (h, w) in [0, 1] around projected points, made at half resolution."""
    height, width = (camera.height + 1) // 2, (camera.width + 1) // 2
    mask = np.zeros((height, width), np.float32)
    front = points[:, 2] > 0.2
    pixel = np.floor(camera.project(points[front]) / 2)
    valid = ((pixel >= 0) & (pixel < [width, height])).all(-1)
    column, row = pixel[valid].astype(int).T
    np.maximum.at(mask, (row, column), weight[front][valid].astype(np.float32))
    mask = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    mask = cv2.GaussianBlur(mask, (0, 0), 1.6)
    return np.clip(
        cv2.resize(mask, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR), 0, 1
    )


def _visible_boxes(
    boxes: list[Box], camera: Camera, light: Light, joints: np.ndarray
) -> list[DrawnBox]:
    """The boxes that can be seen, less those that would hide most of the person's joints."""
    pixels = np.floor(camera.project(joints)).astype(int)
    drawn, hidden = [], np.zeros(len(joints), bool)
    for box in boxes:
        seen = draw_box(camera, box, light)
        if seen is None:
            continue
        rows, columns = seen.window
        here = (pixels[:, 1] >= rows.start) & (pixels[:, 1] < rows.stop)
        here &= (pixels[:, 0] >= columns.start) & (pixels[:, 0] < columns.stop)
        before = np.zeros(len(joints), bool)
        at = pixels[here] - [columns.start, rows.start]
        before[here] = seen.depth[at[:, 1], at[:, 0]] < joints[here, 2] - 0.1
        if (hidden | before).mean() > _MOST_HIDDEN:
            continue
        hidden |= before
        drawn.append(seen)
    return drawn


def _compose(
    rng: np.random.Generator,
    picture: Picture,
    camera: Camera,
    boxes: list[DrawnBox],
    person: np.ndarray,
    depth: np.ndarray,
) -> np.ndarray:
    """Put furniture and the person into the picture; returns the depth of what is in front."""
    for box in boxes:
        behind = box.hit & (box.depth < picture.depth[box.window])
        picture.colour[box.window][behind] = box.colour[behind[box.hit]]
        picture.depth[box.window][behind] = box.depth[behind]
    if rng.uniform() < 0.8:  # the background is a little out of focus
        sigma = float(rng.uniform(0.3, 0.004 * camera.width + 0.5))
        picture.colour = cv2.GaussianBlur(picture.colour, (0, 0), sigma)
    picture.colour *= 1.0 - person[..., 3:]
    picture.colour += person[..., :3]
    near = np.minimum(picture.depth, depth)
    # A pixel at the outline is partly the person's, even where the centre saw nobody.
    outline = cv2.erode(depth, np.ones((3, 3), np.uint8))
    for box in boxes:
        edge = outline[box.window]
        cover = box.hit & (box.depth < edge) & (box.depth <= picture.depth[box.window])
        cover &= np.isfinite(edge)
        soft = cv2.GaussianBlur(cover.astype(np.float32), (3, 3), 0.6)
        soft = np.where(box.hit, np.maximum(soft, cover), 0.0)[..., None]
        layer = np.zeros((*box.hit.shape, 3), np.float32)
        layer[box.hit] = box.colour
        region = picture.colour[box.window]
        region += soft * (layer - region)
    if rng.uniform() < 0.1:
        _blob(rng, picture, camera, near)
    return near


def _blob(rng: np.random.Generator, picture: Picture, camera: Camera, near: np.ndarray) -> None:
    """Something close to the lens, out of focus, that reaches in from the border."""
    mask = np.zeros((camera.height, camera.width), np.float32)
    edge = rng.uniform(-0.1, 1.1, 2)
    edge[int(rng.integers(2))] = float(rng.choice([-0.05, 1.05]))
    middle = (edge * [camera.width, camera.height]).astype(int)
    radius = (rng.uniform(0.1, 0.3, 2) * camera.height).astype(int)
    cv2.ellipse(mask, middle.tolist(), radius.tolist(), float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), float(rng.uniform(1.0, 6.0)))
    colour = rng.uniform(0.02, 0.6, 3).astype(np.float32)
    picture.colour += mask[..., None] * (colour - picture.colour)
    near[mask > 0.5] = 0.0


def _develop(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Exposure, white balance, lens and sensor: linear light to an 8-bit picture."""
    height, width = colour.shape[:2]
    level = float(np.mean(colour)) + 1e-3
    exposure = (0.24 / level) ** rng.uniform(0.4, 0.9) * np.exp(rng.normal(0, 0.18))
    balance = np.exp(rng.normal(0, 0.04, 3))
    light = colour * (exposure * balance).astype(np.float32)
    if rng.uniform() < 0.5:
        x = np.linspace(-1, 1, width, dtype=np.float32)
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        light *= (1.0 - np.float32(rng.uniform(0.05, 0.25)) * (x * x + y * y))[..., None]
    light = light / (1.0 + 0.18 * light)  # highlights roll off
    picture = np.sqrt(np.clip(light, 0.0, 1.0))
    picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.3, 0.8)))
    if rng.uniform() < 0.08:  # the camera moved
        length = int(rng.integers(3, 8))
        kernel = np.zeros((length, length), np.float32)
        ends = (rng.integers(0, length, 2).tolist(), rng.integers(0, length, 2).tolist())
        cv2.line(kernel, ends[0], ends[1], 1.0)
        picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
    contrast = rng.uniform(0.85, 1.15)
    picture = (picture - 0.45) * np.float32(contrast) + np.float32(0.45)
    noise = rng.standard_normal((height, width, 3), np.float32)
    picture += np.float32(rng.uniform(0.002, 0.03)) * noise
    if rng.uniform() < 0.03:
        picture = np.repeat(picture.mean(-1, keepdims=True), 3, -1)
    return np.clip(picture * 255.0 + 0.5, 0, 255).astype(np.uint8)
