"""The pictures at the end of a run, and the page that shows them with the numbers."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxrecon.io.images import write_image
from jaxrecon.reconstruction import Reconstruction
from jaxrecon.rendering.views import turntable
from jaxrecon.report.animation import write_animation
from jaxrecon.report.page import RunPage, Sample, write_run_page
from jaxrecon.report.run import page_of_run
from jaxrecon.results import example_reconstructions
from jaxrecon.systems.base import Variables

PAGE_FILE = "index.html"


def write_page(config: Any, variables: Variables, workdir: Path, examples: int = 4) -> Path:
    """Overlays, a turntable, a mesh, and one self-contained `index.html` in a run folder.

    Args:
      config: resolved.
      variables: trained.
      workdir: has `metrics.jsonl` and `evaluation.json` already.
      examples: how many of the evaluation data to show.

    Returns:
      the page.
    """
    pairs = example_reconstructions(config, variables, examples)
    samples = [_sample(f"Example {i + 1}", *pair) for i, pair in enumerate(pairs)]
    pictures = workdir / "pictures"
    for i, sample in enumerate(samples):
        for caption, picture in sample.pictures.items():
            name = caption.lower().replace(" ", "_")
            write_image(pictures / f"example{i + 1}_{name}.jpg", picture)
    shown = pairs[0][1]
    body = shown.instances[0]
    frames = list(turntable(body.vertices, body.faces))
    write_animation(workdir / "turntable.webp", frames)
    shown.save(workdir / "example1.glb")
    shown.save(workdir / "example1.npz")
    page = RunPage(
        title=f"{config.system.name}: {config.system.backbone}",
        subtitle=f"{config.training.steps:,} steps of {config.training.batch_size} images, "
        f"{config.tto.steps} steps of test-time optimisation",
        samples=samples,
        scene=shown.scene("Example 1, after adaptation"),
        turntable=frames,
        command=f"python -m jaxrecon.main --config={workdir}/config.json --workdir={workdir}",
        files={
            "metrics": "metrics.jsonl",
            "evaluation": "evaluation.json",
            "config": "config.json",
            "mesh (skinned)": "example1.glb",
            "turntable": "turntable.webp",
        },
    )
    write_run_page(workdir / PAGE_FILE, page_of_run(workdir, page))
    return workdir / PAGE_FILE


def _sample(name: str, before: Reconstruction, after: Reconstruction) -> Sample:
    """One row of the gallery: input, both overlays, side view."""
    image = after.image if after.image is not None else after.overlay()
    pictures: dict[str, np.ndarray] = {
        "Input": after.draw_evidence(image),
        "Before adaptation": before.overlay(),
        "After adaptation": after.overlay(),
        "Side view": after.side_view(image_size=image.shape[:2]),
    }
    errors = [r.keypoint_error().pixels for r in (before, after)]
    facts = {}
    if np.isfinite(errors).all():
        facts["2D error"] = f"{errors[0]:.1f} -> {errors[1]:.1f} px"
    return Sample(name, pictures, facts)
