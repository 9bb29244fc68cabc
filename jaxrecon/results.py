"""From photographs and predictions to reconstructions, and their files."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon import runs
from jaxrecon.bodies import load_body
from jaxrecon.config import load_config
from jaxrecon.data.items import Person, person_from_record
from jaxrecon.data.photos import Photo, photo_batch, read_photo
from jaxrecon.io.images import write_image
from jaxrecon.optimization.smplify import fit_keypoints
from jaxrecon.reconstruction import CONFIDENT, Camera, Instance, Reconstruction
from jaxrecon.systems import create_system
from jaxrecon.systems.base import Adaptation, Batch, System, Variables

_OPENPOSE = 25  # the first 25 of the 49 joints are OpenPose's, the others the annotated ones


def read(
    image: Any, keypoints: Any, bbox: Any, joint_set: str | None, focal_length: float | None
) -> Photo:
    """A photograph with its evidence (see `data.photos.read_photo`)."""
    return read_photo(image, keypoints, bbox, joint_set=joint_set, focal_length=focal_length)


@functools.partial(jax.jit, static_argnames=("system", "steps"))
def adapt(system: System, variables: Variables, batch: Batch, steps: int) -> Adaptation:
    """Test-time optimisation; 0 steps predict, and give a history of one."""
    if steps:
        return system.adapt(variables, batch, steps)
    prediction = system.predict(variables, batch)
    history = jax.tree.map(lambda x: x[None], prediction)
    return Adaptation(variables, history, jnp.full(1, jnp.nan))


def reconstruct_photo(
    config: Any, variables: Variables, photo: Photo, steps: int
) -> Reconstruction:
    """One photograph through the network, and `steps` steps of test-time optimisation."""
    evidence, joint_set = evidence_of(photo)
    batch = photo_batch([photo], *config.system.image_size)
    adaptation = adapt(_system_for(config, joint_set), variables, batch, steps)
    return _reconstructions(config, adaptation, [photo], [evidence], joint_set)[0]


def fit_photo(photo: Photo, body_path: str | None = None) -> Reconstruction:
    """One photograph from its keypoints alone, by optimisation from the mean pose."""
    evidence, joint_set = evidence_of(photo)
    body = load_body(body_path)
    camera = _camera(photo)
    fitted = jax.device_get(
        fit_keypoints(
            body,
            evidence[None],
            np.asarray([camera.focal], np.float32),
            np.asarray([camera.center], np.float32),
            joint_set,
        )
    )
    instance = Instance.of_body(
        body,
        fitted.betas[0],
        fitted.rotmats[0],
        fitted.transl[0],
        keypoints2d=evidence,
        keypoint_set=joint_set,
        history={"loss": fitted.history[0]},
    )
    return Reconstruction([instance], camera, photo.image, "smplify", body)


def evidence_of(photo: Photo) -> tuple[np.ndarray, str]:
    """The keypoints of a photograph that a fit follows, and their joint set.

    OpenPose's own 25 where its detections are there, else the 24 annotated ones: to follow both
    would count most joints twice.
    """
    seen = photo.keypoints2d[:, 2] > 0
    if seen[:_OPENPOSE].sum() > seen[_OPENPOSE:].sum():
        return photo.keypoints2d[:_OPENPOSE], "openpose25"
    return photo.keypoints2d[_OPENPOSE:], "gt24"


def example_samples(config: Any, adaptation: Any, count: int = 8) -> list[dict[str, Any]]:
    """The first examples of the evaluation data, before and after test-time optimisation.

    `adaptation` is `Evaluation.first`, of the first batch of these data.
    Each is a sample of `report.run.write_run_report`: `image`, `name`, `before`, `after`.
    """
    data = runs.evaluation_data(config)
    source = runs.evaluation_source(data, config.evaluation.examples)
    count = min(count, len(source), adaptation.history.betas.shape[1])
    photos = [_photo_of(person_from_record(source[i], data.box)) for i in range(count)]
    openpose = config.tto.openpose
    joint_set = "openpose25" if openpose else "gt24"
    half = slice(None, _OPENPOSE) if openpose else slice(_OPENPOSE, None)
    evidence = [photo.keypoints2d[half] for photo in photos]
    before, after = (
        _reconstructions(config, adaptation, photos, evidence, joint_set, s) for s in (0, None)
    )
    return [
        {"image": photo.image, "name": photo.name, "before": first, "after": last}
        for photo, first, last in zip(photos, before, after)
    ]


def write_reconstruction(found: Reconstruction, folder: Path, stem: str) -> str:
    """Writes .npz, .glb, .html, overlay and side view of one photograph; says what was found."""
    files = [found.save(folder / f"{stem}{ending}") for ending in (".npz", ".glb", ".html")]
    for name, picture in (("overlay", found.overlay(keypoints=True)), ("side", found.side_view())):
        path = folder / f"{stem}_{name}.png"
        write_image(path, picture)
        files.append(path)
    lines = [f"{found}"]
    error = found.keypoint_error()
    if error.joints:
        lines.append(
            f"mean 2D error over {error.joints} confident keypoints: {error.pixels:.1f} px, "
            f"{100 * error.fraction:.2f} % of the longer side of their box"
        )
    return "\n".join([*lines, "written: " + ", ".join(str(path) for path in files)])


def _reconstructions(
    config: Any,
    adaptation: Adaptation,
    photos: list[Photo],
    evidence: list[np.ndarray],
    joint_set: str,
    step: int | None = None,
) -> list[Reconstruction]:
    """The state of one step of a history, each example with the history up to there.

    Without a step it is the last one, or each example's own where `tto.keep` is "probable".
    """
    body = load_body(config.body.path or None)
    history = jax.device_get(adaptation.history)
    steps = _kept_steps(config, adaptation) if step is None else [step] * len(photos)
    results = []
    for i, (photo, points, step) in enumerate(zip(photos, evidence, steps)):
        until = step + 1
        half = slice(None, _OPENPOSE) if joint_set == "openpose25" else slice(_OPENPOSE, None)
        distance = np.linalg.norm(history.keypoints2d[:until, i, half] - points[:, :2], axis=-1)
        seen = points[:, 2] >= CONFIDENT
        moved = history.vertices[:until, i] + history.transl[:until, i, None]
        trail: dict[str, np.ndarray] = {"vertices": moved}
        if seen.any():
            trail["keypoint_error"] = distance[:, seen].mean(-1)
        losses = np.asarray(adaptation.losses)[:until]
        if np.isfinite(losses).all():
            trail["loss"] = losses if losses.ndim == 1 else losses[:, i]
        instance = Instance.of_body(
            body,
            history.betas[step, i],
            history.rotmats[step, i],
            history.transl[step, i],
            keypoints2d=points if seen.any() else None,
            keypoint_set=joint_set if seen.any() else None,
            history=trail,
        )
        camera = _camera(photo)
        results.append(Reconstruction([instance], camera, photo.image, config.system.name, body))
    return results


def _kept_steps(config: Any, adaptation: Adaptation) -> list[int]:
    """For every example of a history, the step whose state is the result."""
    steps, count = adaptation.history.betas.shape[:2]
    if keeps_probable(config) and adaptation.chosen is not None:
        return [int(step) for step in jax.device_get(adaptation.chosen)]
    return [steps - 1] * count


def keeps_probable(config: Any) -> bool:
    """Whether the result is each example's most probable state (`tto.keep`), not the last."""
    return config.tto.get("keep", "probable") == "probable"


def _system_for(config: Any, joint_set: str) -> System:
    """The system of a config, told which half of the 49 joints holds the evidence."""
    return create_system(load_config(config, {"tto.openpose": joint_set == "openpose25"}))


def _camera(photo: Photo) -> Camera:
    height, width = photo.image.shape[:2]
    return Camera(photo.focal_length, (width / 2, height / 2), (height, width))


def _photo_of(person: Person) -> Photo:
    return Photo(
        image=person.image,
        keypoints2d=np.asarray(person.keypoints2d, np.float32),
        center=person.center,
        scale=person.scale,
        focal_length=person.focal_length,
        name=person.imgname,
    )
