"""Files of a `SequenceReconstruction`.

    OUT/frames/NAME.npz, NAME.glb, NAME_overlay.png   of each frame, as for a single photograph
    OUT/STEM.glb            the moving body with its skeleton
    OUT/STEM_motion.npz     the motion in AMASS's layout
    OUT/STEM_overlay.mp4    the overlay; .webp where OpenCV can write no video
    OUT/index.html          one self-contained page that shows them

Frames are read, drawn and written one at a time; each file appears whole or not at all, the page
last.
"""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from tqdm import tqdm

from jaxrecon.bodies.joints import JOINT_SETS
from jaxrecon.errors import UserError
from jaxrecon.io.amass import write_motion
from jaxrecon.io.animated_glb import body_rig, write_skinned_glb
from jaxrecon.io.images import write_image
from jaxrecon.io.video import PAGE_CODECS
from jaxrecon.report.curves import Chart, Series
from jaxrecon.report.film import film
from jaxrecon.report.page import Metric, Movie, RunPage, Sample, write_run_page
from jaxrecon.report.viewer import Layer, Scene

if TYPE_CHECKING:
    from jaxrecon.reconstruction import Reconstruction
    from jaxrecon.sequence import SequenceReconstruction

SUFFIXES = (".glb", ".npz", ".mp4", ".webp", ".gif", ".html")
PAGE_FILE = "index.html"
_LONGEST = 1920  # pixels of the overlay video
_ON_PAGE = 640  # ... of the one inside the page
_PAGE_FRAMES = 1800  # frames of that
_PORTRAIT = (480, 320)  # height and width of the page's pictures
_PADDED = 128  # frames of many sizes are drawn at multiples of so many pixels
_GALLERY = 6  # frames with pictures
_STEPS = 48  # of the body in the page's 3D view


def save(sequence: "SequenceReconstruction", path: Path, progress: bool) -> list[Path]:
    """Write by suffix; see `SequenceReconstruction.save`."""
    suffix = path.suffix.lower()
    if not suffix or path.is_dir():
        return _save_folder(sequence, path, progress)
    if suffix not in SUFFIXES:
        raise UserError(
            f"cannot save a sequence as {path.name!r}: name a folder, or a file that ends in "
            f"{', '.join(SUFFIXES)}"
        )
    if suffix == ".glb":
        _write_glb(sequence, path)
    elif suffix == ".npz":
        write_motion(path, sequence.motion())
    elif suffix == ".html":
        _, movie, samples = _draw(sequence, None, None, progress, page=True)
        _write_page(sequence, path, movie, samples, {})
    else:
        written, _, _ = _draw(sequence, path, None, progress, page=False)
        return [written or path]
    return [path]


def _save_folder(sequence: "SequenceReconstruction", folder: Path, progress: bool) -> list[Path]:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder for the results")
    stem = sequence.source.stem
    glb, npz = folder / f"{stem}.glb", folder / f"{stem}_motion.npz"
    _write_glb(sequence, glb)
    write_motion(npz, sequence.motion())
    video = folder / f"{stem}_overlay.mp4"
    written, movie, samples = _draw(sequence, video, folder / "frames", progress, page=True)
    video = written or video
    files = {path.name: path.name for path in (video, glb, npz)}
    page = folder / PAGE_FILE
    _write_page(sequence, page, movie, samples, {**files, "each frame": "frames/"})
    return [page, video, glb, npz, folder / "frames"]


def _write_glb(sequence: "SequenceReconstruction", path: Path) -> None:
    track = sequence.even_track()
    count = track.rotmats.shape[1]
    smpl = JOINT_SETS["smpl24"]
    names = smpl if count == len(smpl) else tuple(f"joint_{i}" for i in range(count))
    rig = body_rig(sequence.body, track.betas[0], names)
    write_skinned_glb(path, rig, track.rotmats, track.transl, sequence.fps)


def write_frame(found: "Reconstruction", folder: Path, stem: str, overlay: np.ndarray) -> None:
    """The files of one frame."""
    found.save(folder / f"{stem}.npz")
    found.save(folder / f"{stem}.glb")
    write_image(folder / f"{stem}_overlay.png", overlay)


def _draw(
    sequence: "SequenceReconstruction",
    path: Path | None,
    frames: Path | None,
    progress: bool,
    page: bool,
) -> tuple[Path | None, Movie | None, list[Sample]]:
    """Every frame once: the film at `path`, the files in `frames`, and what a page needs.

    Returns:
      the path of the film, and the film and the pictures of the page.
    """
    chosen = evenly(sequence.track.frames, _GALLERY) if page else []
    sizes = sequence.image_sizes[sequence.image_sizes.prod(-1) > 0]
    shape = ((int(sizes[:, 0].max()), int(sizes[:, 1].max())), sequence.fps, len(sequence))
    many = len(np.unique(sizes, axis=0)) > 2
    samples: list[Sample] = []
    movie = None
    with TemporaryDirectory() as scratch, ExitStack() as stack:
        films = []
        if page:
            on_page = film(Path(scratch) / "page.mp4", *shape, _ON_PAGE, PAGE_CODECS, _PAGE_FRAMES)
            films.append(stack.enter_context(on_page))
        if path is not None:
            films.append(stack.enter_context(film(path, *shape, _LONGEST)))
        bar = stack.enter_context(frame_bar(len(sequence), "writing", progress))
        for number, found in sequence:
            overlay = _overlay(found, many)
            for each in films:
                each.add(overlay)
            if len(found) and frames is not None:
                write_frame(found, frames, sequence.source.names[number], overlay)
            if number in chosen:
                samples.append(_sample(sequence, number, found, overlay))
            bar.update(1)
        stack.close()  # the films are whole now
        if page:
            movie = Movie(films[0].path.read_bytes(), films[0].mime)
    return films[-1].path if path is not None else None, movie, samples


@contextmanager
def frame_bar(total: int, what: str, shown: bool = True) -> Iterator[Any]:
    """A bar on standard error with the frames a second and the time left."""
    terminal = sys.stderr.isatty()
    with tqdm(
        total=total,
        desc=what,
        unit="frame",
        file=sys.stderr,
        disable=not shown,
        dynamic_ncols=terminal,
        mininterval=0.2 if terminal else 10.0,
        delay=0.5,  # nothing to see where it is done before
    ) as bar:
        yield bar


def evenly(numbers: np.ndarray, count: int) -> list[int]:
    """At most `count` of some numbers, first and last among them."""
    places = np.linspace(0, len(numbers) - 1, min(count, len(numbers))).round().astype(int)
    return [int(number) for number in numbers[places]]


def _overlay(found: "Reconstruction", many_sizes: bool) -> np.ndarray:
    """The overlay of a frame; of frames of many sizes without a compilation for each size."""
    height, width = found.camera.image_size
    rows, columns = (-side % _PADDED for side in (height, width))
    if not many_sizes or not (rows or columns):
        return found.overlay(keypoints=True)
    camera = dataclasses.replace(found.camera, image_size=(height + rows, width + columns))
    image = found.image
    if image is not None:
        image = cv2.copyMakeBorder(image, 0, rows, 0, columns, cv2.BORDER_REPLICATE)
    larger = dataclasses.replace(found, camera=camera, image=image)
    return np.ascontiguousarray(larger.overlay(keypoints=True)[:height, :width])


def _sample(
    sequence: "SequenceReconstruction", number: int, found: "Reconstruction", overlay: np.ndarray
) -> Sample:
    pictures = {}
    if found.image is not None:
        pictures["input"] = _portrait(found, found.draw_evidence(found.image))
    pictures["overlay"] = _portrait(found, overlay)
    # All of one size: the renderer is compiled for each size anew.
    pictures["side view"] = found.side_view(image_size=_PORTRAIT)
    error = found.keypoint_error()
    facts = {"2D error": f"{error.pixels:.1f} px"} if error.joints else {}
    return Sample(sequence.source.names[number], pictures, facts)


def _portrait(found: "Reconstruction", picture: np.ndarray) -> np.ndarray:
    """The part of a frame around the body, at `_PORTRAIT`."""
    rows, columns = _PORTRAIT
    points = found.camera.project(found.instances[0].vertices)
    points = points[np.isfinite(points).all(-1)]
    low, high = points.min(0), points.max(0)
    span = 1.3 * max(high[1] - low[1], (high[0] - low[0]) * rows / columns, 16.0)
    scale = rows / span
    middle = (low + high) / 2
    move = np.array([columns / 2, rows / 2]) - scale * middle
    matrix = np.array([[scale, 0, move[0]], [0, scale, move[1]]])
    if scale < 1:  # no finer than what is shown, so that nothing flickers or frays
        picture = cv2.GaussianBlur(picture, (0, 0), 0.4 / scale)
    return cv2.warpAffine(
        picture, matrix, (columns, rows), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )


def _write_page(
    sequence: "SequenceReconstruction",
    path: Path,
    movie: Movie | None,
    samples: list[Sample],
    files: dict[str, str],
) -> None:
    errors = sequence.keypoint_errors()
    track, total = sequence.track, len(sequence)
    height, width = sequence.camera(int(track.frames[0])).image_size
    facts = {
        "frames": f"{total:,}",
        "with a body": f"{len(track):,}",
        "length": f"{total / sequence.fps:.1f} s at {sequence.fps:g} frames/s",
        "image": f"{width} x {height} px",
    }
    filled = int((~track.observed).sum())
    if filled:
        facts["filled in"] = f"{filled:,}"
    metrics = []
    measured = np.isfinite(errors)
    if measured.any():
        about = "mean distance of the projected joints from the 2D keypoints, over the frames"
        metrics.append(Metric("2D error", "px", float(np.nanmean(errors)), about=about))
    page = RunPage(
        title=sequence.source.stem,
        subtitle=f"One body over {total:,} frames"
        + (f", by {sequence.system}" if sequence.system else ""),
        facts=facts,
        notes=sequence.notes,
        metrics=metrics,
        movie=movie,
        samples=samples,
        scene=_scene(sequence),
        time_charts=_time_charts(sequence, errors),
        files=files,
    )
    write_run_page(path, page)


def _scene(sequence: "SequenceReconstruction") -> Scene:
    """Some bodies of the sequence, evenly spaced, played at its speed."""
    track = sequence.track
    chosen = evenly(np.arange(len(track)), _STEPS)
    vertices = sequence.vertices(np.array(chosen))
    seconds = track.frames[chosen] / sequence.fps
    interval = 1000 * float(np.diff(seconds).mean()) if len(chosen) > 1 else 220.0
    return Scene(
        [Layer("body", vertices, np.asarray(sequence.body.faces))],
        labels=[f"{second:.2f} s" for second in seconds],
        caption="The body of every frame shown is where the camera sees it.",
        interval=max(20, round(interval)),
    )


def _time_charts(sequence: "SequenceReconstruction", errors: np.ndarray) -> list[Chart]:
    """2D error, and where the body is, over the seconds."""
    track, charts = sequence.track, []
    if len(sequence) < 2:
        return []
    seconds = np.arange(len(sequence)) / sequence.fps
    first = sequence.history.get("keypoint_error")
    if np.isfinite(errors).any():
        lines = [Series("result", seconds, errors, colour=0)]
        if first is not None and first.shape[1] > 1 and np.isfinite(first[:, 0]).any():
            lines.append(Series("before adaptation", seconds, first[:, 0], colour=1))
        charts.append(Chart("2D error", lines, "seconds", "pixels", zero=True))
    place = np.full((len(sequence), 3), np.nan)
    place[track.frames] = track.transl
    names = ("right (x)", "down (y)", "away (z)")
    lines = [Series(name, seconds, place[:, axis]) for axis, name in enumerate(names)]
    charts.append(Chart("Place in the camera frame", lines, "seconds", "metres"))
    return charts
