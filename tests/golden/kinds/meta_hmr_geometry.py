"""Golden kinds of Meta-HMR: rotations, cameras, alignment and the body model."""

import importlib.util
from functools import cache
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np

from jaxrecon.bodies import BodyModel, body_forward, build_body, h36m_joints, joints49
from jaxrecon.bodies.model import lsp14_centred
from jaxrecon.geometry import cameras, procrustes, rotations
from jaxrecon.geometry.metrics import mpjpe, pa_mpjpe
from tests.golden.runner import Case, Check, kind


@cache
def import_file(path: str) -> ModuleType:
    """A support file (input maker, synthetic model) as a module."""
    spec = importlib.util.spec_from_file_location("golden_support", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


VARIANTS = {"neutral": 0, "male": 1, "female": 2}


@cache
def _synthetic_body(path: str, vertices: int, gender: str) -> BodyModel:
    arrays = dict(import_file(path).make_body(vertices, variant=VARIANTS[gender]))
    arrays["vertex_ids"] = arrays.pop("extra_vertex_ids")
    return build_body(arrays, f"synthetic_{gender}")


def synthetic_body(case: Case, vertices: int, gender: str = "neutral") -> BodyModel:
    """The made-up body of the golden files."""
    return _synthetic_body(str(case.support("synthetic_smpl.py")), vertices, gender)


@kind("meta_hmr", "geom_rotations")
def geom_rotations(case: Case) -> list[Check]:
    a = case.arrays

    def weighted(convert, x):
        return jax.grad(lambda x: jnp.sum(convert(x) * a["in_weight"]))(jnp.asarray(x))

    def rodrigues(x):
        return rotations.quaternion_to_matrix(rotations.axis_angle_to_quaternion(x))

    six, aa = a["in_six"], a["in_axis_angle"]
    return [
        Check("rot6d", rotations.rot6d_to_matrix(six), a["out_rot6d"], 1e-5),
        Check("rot6d grad", weighted(rotations.rot6d_to_matrix, six), a["out_rot6d_grad"], 1e-5),
        Check("rodrigues", rodrigues(aa), a["out_rodrigues"], 1e-5),
        Check("rodrigues grad", weighted(rodrigues, aa), a["out_rodrigues_grad"], 1e-5),
        Check("quat", rotations.quaternion_to_matrix(a["in_quat"]), a["out_quat_rotmat"], 1e-5),
    ]


@kind("meta_hmr", "geom_projection")
def geom_projection(case: Case) -> list[Check]:
    a = case.arrays

    def general(points, translation):
        return cameras.project(points, a["in_focal"], a["in_center"], a["in_rotation"], translation)

    def weighted(points, translation):
        return jnp.sum(general(points, translation) * a["in_weight"])

    grad_points, grad_translation = jax.grad(weighted, (0, 1))(
        jnp.asarray(a["in_points"]), jnp.asarray(a["in_translation"])
    )
    count = len(a["in_points"])
    distant = cameras.project(
        a["in_points"],
        np.full(count, cameras.HMR_FOCAL, np.float32),
        np.zeros((count, 2), np.float32),
        translation=a["in_translation"],
    )
    f32 = {k: a[k].astype(np.float32) for k in ("in_box_scale", "in_image_hw", "in_focal_full")}

    def full(cam):
        return cameras.crop_to_full_camera(
            cam, a["in_box_center"], f32["in_box_scale"], f32["in_image_hw"], f32["in_focal_full"]
        )

    cam = jnp.asarray(a["in_crop_cam"])
    estimated = cameras.estimate_translation(
        a["in_est_joints3d"][:, 25:],
        a["in_est_joints2d"][:, 25:],
        a["in_focal"],
        np.full((count, 2), 112.0, np.float32),
    )
    body_yaw, pitch, yaw, roll = (float(x) for x in a["in_yaw_pitch"])
    world, camera, extrinsic = rotations.global_orientation(
        a["in_pose"][:3].astype(np.float32), body_yaw, pitch, yaw, roll
    )
    return [
        Check("points", general(a["in_points"], a["in_translation"]), a["out_points2d"], 1e-5),
        Check("grad points", grad_points, a["out_grad_points"], 1e-5),
        Check("grad translation", grad_translation, a["out_grad_translation"], 1e-5),
        Check("points f5000", distant, a["out_points2d_f5000"], 1e-5),
        Check("full camera", full(cam), a["out_full_cam"], 1e-5),
        Check("full camera, NumPy twin", full(cam), a["out_full_cam_np"], 1e-5),
        Check(
            "full camera grad",
            jax.grad(lambda c: jnp.sum(full(c) * a["in_weight3"]))(cam),
            a["out_full_cam_grad"],
            1e-5,
        ),
        Check("translation", estimated, a["out_est_translation"], 1e-5),
        Check("world orientation", world, a["out_world_orient"], 1e-5),
        Check("camera orientation", camera, a["out_camera_orient"], 1e-5),
        Check("camera rotation", extrinsic, a["out_camera_rot"], 1e-5),
    ]


@kind("meta_hmr", "geom_alignment")
def geom_alignment(case: Case) -> list[Check]:
    a = case.arrays
    aligned = procrustes.similarity_align(a["in_pred"], a["in_gt"])
    pa = pa_mpjpe(a["in_pred"], a["in_gt"])
    return [
        Check("aligned", aligned, a["out_aligned"], 1e-5),
        Check("PA error", pa, a["out_pa"], 1e-5),
        Check("PA mean", jnp.mean(pa), a["out_pa_mean"], 1e-5),
        Check("PA sum", jnp.sum(pa), a["out_pa_sum"], 1e-5),
        Check("MPJPE", mpjpe(a["in_pred"], a["in_gt"]), a["out_mpjpe"], 1e-5),
    ]


@kind("meta_hmr", "smpl")
def smpl(case: Case) -> list[Check]:
    a = case.arrays
    vertices = next(int(word) for word in case.words if word.isdigit())
    gender = next((word for word in case.words if word in VARIANTS), "neutral")
    body = synthetic_body(case, vertices, gender)
    # The extra joints of the gendered bodies come from the neutral model's regressors.
    pose_key = "rotmat" if "in_rotmat" in a else "pose"

    def pose_to_matrices(pose):
        if pose_key == "rotmat":
            return pose
        return rotations.axis_angle_to_matrix(pose.reshape(len(pose), 24, 3))

    def weighted(pose, betas):
        output = body_forward(body, betas, pose_to_matrices(pose))
        joints = joints49(body, output)
        return jnp.sum(joints * a["in_grad_weight"]), (output, joints)

    (_, (output, joints)), (grad_pose, grad_betas) = jax.jit(
        jax.value_and_grad(weighted, (0, 1), has_aux=True)
    )(jnp.asarray(a[f"in_{pose_key}"]), jnp.asarray(a["in_betas"]))
    step = -(-vertices // a["out_vertices"].shape[1])
    return [
        Check("vertices", output.vertices[:, ::step], a["out_vertices"], 1e-5),
        Check("joints49", joints, a["out_joints49"], 1e-5),
        Check("h36m17", h36m_joints(body, output.vertices), a["out_h36m17"], 1e-5),
        Check("h36m14", lsp14_centred(body, output.vertices), a["out_h36m14_centred"], 1e-5),
        Check(f"grad {pose_key}", grad_pose, a[f"out_grad_{pose_key}"], 1e-5),
        Check("grad betas", grad_betas, a["out_grad_betas"], 1e-5),
    ]
