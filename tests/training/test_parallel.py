"""Placement on devices, and the feed that runs ahead of the steps."""

import jax
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.training.parallel import DeviceFeed, Placement, initialize_hosts, sum_over_hosts
from tests.training.toy import ToyBatches


def test_the_feed_gives_the_position_after_each_batch() -> None:
    batches = ToyBatches(4)
    feed = DeviceFeed(batches, Placement(), depth=3)
    peeked = feed.peek()
    seen = [next(feed) for _ in range(4)]
    np.testing.assert_array_equal(peeked["x"], seen[0][0]["x"])
    assert [position["index"] for _, position in seen] == [1, 2, 3, 4]
    # It read ahead, but a run continued from the position after batch 4 sees batch 5.
    assert batches.get_state()["index"] > 4
    fresh = ToyBatches(4)
    fresh.set_state(seen[3][1])
    np.testing.assert_array_equal(next(fresh)["x"], next(feed)[0]["x"])
    assert isinstance(peeked["x"], jax.Array)


def test_global_batches_divide_by_the_devices() -> None:
    three = Placement(devices=(jax.local_devices()[0],) * 3)
    assert three.mapped and three.host_batch_size(12) == 12
    with pytest.raises(UserError, match="batch_size=10 .* 3 devices; .* is 9"):
        three.host_batch_size(10)
    with pytest.raises(UserError, match="host batch of 10 does not divide by its 3 devices"):
        three.put_batch({"x": np.zeros((10, 2))})


def test_one_host_sums_nothing_and_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sum_over_hosts({"a": 1.5}) == {"a": 1.5}
    monkeypatch.delenv("JAXRECON_DISTRIBUTED", raising=False)
    initialize_hosts()
    assert not jax.distributed.is_initialized()
