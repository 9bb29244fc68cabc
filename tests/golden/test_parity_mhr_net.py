"""The golden cases of MHR-Net through the public path: those of the checkout, and ../shared's."""

from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.golden import check, runner

check.load_kinds("mhr_net")
LOCAL = Path(__file__).parent / "mhr_net"
# Those that compile a training step or whole checkpoints take seconds.
_SLOW = ("train_", "checkpoint_")


def _cases(directory: Path, all_slow: bool) -> list:
    return [
        pytest.param(
            case,
            id=case.name,
            marks=[pytest.mark.slow] if all_slow or case.name.startswith(_SLOW) else [],
        )
        for case in runner.cases("mhr_net", directory)
    ]


def _assert_passes(case: runner.Case) -> None:
    try:
        checks = runner.run(case)
    except runner.NotYet as reason:
        pytest.skip(str(reason))
    assert checks
    for one in checks:
        error, allowed = one.outcome()
        assert error <= allowed, f"{case.name}: {one.label}"


@pytest.mark.parametrize("case", _cases(LOCAL, False))
def test_case_of_the_checkout(case):
    _assert_passes(case)


@pytest.mark.skipif(
    SHARED is None, reason="the reference data ../shared is not beside this checkout"
)
@pytest.mark.parametrize(
    "case", _cases(SHARED / "golden" / "mhr_net", True) if SHARED is not None else []
)
def test_case_of_the_reference_data(case):
    _assert_passes(case)
