"""The support code that a checkout carries makes the same numbers as the reference data's."""

import importlib.util

import numpy as np

from tests.golden.support import fill, golden_inputs, synthetic_smpl


def _import(path):
    spec = importlib.util.spec_from_file_location("reference", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fill_is_the_reference(shared_dir):
    reference = _import(shared_dir / "golden" / "fill.py").fill
    names = {
        "a.conv.weight": (4, 3, 3, 3),
        "a.bn.weight": (7,),
        "a.bn.bias": (7,),
        "a.bn.running_mean": (7,),
        "a.bn.running_var": (7,),
        "a.bn.num_batches_tracked": (),
        "fc.weight": (5, 6),
        "init_pose": (1, 144),
    }
    for name, shape in names.items():
        np.testing.assert_array_equal(fill.fill(name, shape), reference(name, shape), name)


def test_batches_are_the_reference(shared_dir):
    reference = _import(shared_dir / "golden" / "meta_hmr" / "golden_inputs.py")
    arguments = (7, 2, 64, 96, [1, 0], [0, 1])
    got, want = golden_inputs.make_batch(*arguments), reference.make_batch(*arguments)
    assert list(got) == list(want)
    for key, value in want.items():
        assert got[key].dtype == value.dtype, key
        np.testing.assert_array_equal(got[key], value, key)


def test_body_is_the_reference(shared_dir):
    reference = _import(shared_dir / "golden" / "meta_hmr" / "synthetic_smpl.py")
    for variant in (0, 2):
        got, want = (m.make_body(431, variant) for m in (synthetic_smpl, reference))
        assert set(got) == set(want)
        for key, value in want.items():
            assert got[key].dtype == value.dtype, key
            np.testing.assert_array_equal(got[key], value, key)
