import json

import numpy as np
import pytest

from jaxrecon.data import batches as batches_module
from jaxrecon.data.items import BATCH_TYPES
from jaxrecon.data.pipeline import DataConfig, eval_batches, train_batches
from jaxrecon.errors import UserError
from tests.data.people import make_records

RECORDS = make_records(22)
SMALL = {"datasets": "people", "height": 32, "width": 24}


def train(count, config=None, batch_size=4, seed=3, records=RECORDS, **kwargs):
    batches = train_batches(SMALL | (config or {}), batch_size, seed, sources=[records], **kwargs)
    result = [next(batches) for _ in range(count)]
    batches.close()
    return result


def assert_same(first, second):
    assert len(first) == len(second)
    for a, b in zip(first, second):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def different(first, second):
    return not all(np.array_equal(a["image"], b["image"]) for a, b in zip(first, second))


def test_batches_keep_the_contract():
    batch = train(1)[0]
    shapes = {
        "image": (4, 32, 24, 3),
        "keypoints2d": (4, 49, 3),
        "keypoints2d_full": (4, 49, 3),
        "pose": (4, 72),
        "betas": (4, 10),
        "joints3d": (4, 24, 4),
        "center": (4, 2),
        "image_size": (4, 2),
        "bbox_info": (4, 3),
        "crop_trans": (4, 2, 3),
    }
    assert {key: value.dtype for key, value in batch.items()} == BATCH_TYPES
    assert {key: value.shape for key, value in batch.items()} == {
        key: shapes.get(key, (4,)) for key in BATCH_TYPES
    }
    np.testing.assert_array_equal(batch["image_size"], [[120, 140]] * 4)


def test_a_seed_fixes_everything_and_another_changes_it():
    config = {"occlusion": ("all",)}
    assert_same(train(7, config), train(7, config))
    assert different(train(3, config), train(3, config, seed=4))
    assert different(train(3, config), train(3))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_and_cache_change_nothing(threads):
    # 12 batches are more than two epochs, so the cache is used.
    assert_same(train(12, {"threads": threads, "cache_mb": 0}), train(12))


def test_without_grain_the_batches_are_the_same(monkeypatch):
    with_grain = train(12)
    evaluated = list(eval_batches(SMALL, 4, sources=[RECORDS]))
    monkeypatch.setattr(batches_module, "grain", None)
    assert_same(train(12), with_grain)
    assert_same(list(eval_batches(SMALL, 4, sources=[RECORDS])), evaluated)


@pytest.mark.parametrize("taken", [0, 3, 6])
def test_resumed_batches_are_those_of_an_uninterrupted_run(taken):
    whole = train(9)
    batches = train_batches(SMALL, 4, 3, sources=[RECORDS])
    for _ in range(taken):
        next(batches)
    state = json.dumps(batches.get_state())
    batches.close()
    fresh = train_batches(SMALL, 4, 3, sources=[RECORDS])
    next(fresh)
    fresh.set_state(json.loads(state))
    assert_same([next(fresh) for _ in range(9 - taken)], whole[taken:])
    fresh.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2])
def test_worker_processes_change_nothing_and_resume(workers):
    whole = train(9)
    config = {"workers": workers}
    assert_same(train(9, config), whole)
    batches = train_batches(SMALL | config, 4, 3, sources=[RECORDS])
    batches.set_state({"batches": 4, "batch_size": 4})
    assert_same([next(batches) for _ in range(3)], whole[4:7])
    batches.close()


@pytest.mark.slow
def test_a_fault_in_a_worker_process_arrives_as_itself():
    records = [RECORDS[0] | {"image": b"no image"}] * 4
    with pytest.raises(UserError, match="0000.jpg: the image cannot be decoded"):
        train(1, {"workers": 1}, records=records)


def test_a_damaged_image_is_named():
    records = [RECORDS[0] | {"image": b"no image"}] * 4
    with pytest.raises(UserError, match="0000.jpg: the image cannot be decoded"):
        train(1, records=records)


def test_hosts_share_one_global_batch():
    whole = train(7, batch_size=8)
    parts = [train(7, batch_size=8, process_index=i, process_count=2) for i in range(2)]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts)]
    assert_same(joined, whole)


def test_an_epoch_meets_each_example_once():
    batches = train(10, {"augment": False})
    betas = {tuple(record["betas"]): i for i, record in enumerate(RECORDS)}
    met = [betas[tuple(row)] for batch in batches for row in batch["betas"]]
    first, second = met[:20], met[20:]  # 22 examples: the last partial batch is dropped
    assert len(set(first)) == len(set(second)) == 20
    assert first != second


def test_unshuffled_batches_keep_the_order_of_the_data():
    batches = train(10, {"augment": False, "shuffle": False})
    met = np.concatenate([batch["betas"] for batch in batches])
    wanted = [record["betas"] for record in RECORDS[:20]] * 2
    np.testing.assert_array_equal(met, wanted)


def test_hidden_3d_labels():
    batch = train(1, {"ignore_3d": True})[0]
    assert not batch["has_smpl"].any() and not batch["has_joints3d"].any()


def test_occlusion_only_over_the_named_data_sets():
    plain = train(2)
    assert_same(train(2, {"occlusion": ("h36m",)}), plain)
    assert different(train(2, {"occlusion": ("tiny_people",)}), plain)


def test_mixtures_draw_by_weight():
    sources = [make_records(20, "one"), make_records(6, "two")]
    config = SMALL | {"datasets": ("one", "two"), "mixture": "weights", "weights": (1.0, 3.0)}
    batches = train_batches(config | {"augment": False}, 10, 0, sources=sources)
    short = {tuple(record["betas"]) for record in sources[1]}
    met = [tuple(row) for _ in range(20) for row in next(batches)["betas"]]
    batches.close()
    assert len(met) == 200
    # The shorter set also begins the longer one: 3/4 from it, and 6/20 of the remaining quarter.
    assert 0.7 < np.mean([row in short for row in met]) < 0.95


def test_published_mixture_by_name():
    names = ("mpii", "h36m/p2", "mpi_inf_3dhp", "coco", "pw3d")
    sources = [make_records(4, name) for name in names]
    config = SMALL | {"datasets": names, "mixture": "published_3dpw"}
    batches = train_batches(config, 4, 0, sources=sources)
    assert next(batches)["image"].shape == (4, 32, 24, 3)
    batches.close()
    with pytest.raises(UserError, match="also needs the data sets coco, mpii, mpi_inf_3dhp"):
        train_batches(
            SMALL | {"datasets": ("h36m",), "mixture": "published"}, 4, 0, sources=sources[:1]
        )


def test_evaluation_passes_once_and_fills_up():
    batches = eval_batches(SMALL, 8, sources=[RECORDS])
    assert len(batches) == 3
    for _ in range(2):  # it can be gone through again
        got = list(batches)
        assert [batch["image"].shape for batch in got] == [(8, 32, 24, 3)] * 3
        np.testing.assert_array_equal(
            np.concatenate([batch["index"][batch["valid"]] for batch in got]), np.arange(22)
        )
        assert got[-1]["valid"].tolist() == [True] * 6 + [False] * 2
        betas = np.concatenate([batch["betas"][batch["valid"]] for batch in got])
        np.testing.assert_array_equal(betas, [record["betas"] for record in RECORDS])


def test_evaluation_over_hosts():
    whole = list(eval_batches(SMALL, 8, sources=[RECORDS]))
    parts = [
        list(eval_batches(SMALL, 8, sources=[RECORDS], process_index=i, process_count=2))
        for i in range(2)
    ]
    joined = [{key: np.concatenate([a[key], b[key]]) for key in a} for a, b in zip(*parts)]
    assert_same(joined, whole)


@pytest.mark.parametrize(
    "config, batch_size, message",
    [
        ({"hight": 3}, 4, "unknown field hight"),
        ({}, 40, "batch_size 40 is above the 22 examples"),
        ({}, 0, "batch_size 0 is not a positive multiple"),
        ({"mixture": "even"}, 4, "mixture 'even' is unknown"),
        ({"mixture": "weights"}, 4, "0 weights for 1 data sets"),
        ({"occlusion": ("all",), "occluders": "none.npy"}, 4, "no such occluder file: none.npy"),
        ({"datasets": ("a", "a")}, 4, "named twice"),
    ],
)
def test_faults_of_the_config(config, batch_size, message):
    with pytest.raises(UserError, match=message):
        train(1, config, batch_size)


def test_a_damaged_position():
    batches = train_batches(SMALL, 4, 3, sources=[RECORDS])
    with pytest.raises(UserError, match="position of the data is damaged"):
        batches.set_state({"batch": 3})


def test_config_from_config_dict():
    from ml_collections import ConfigDict

    config = ConfigDict({"datasets": "people", "height": 64, "occlusion": ("h36m",)})
    assert DataConfig.from_config(config) == DataConfig(
        datasets=("people",), height=64, occlusion=("h36m",)
    )
