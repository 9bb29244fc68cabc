"""The golden cases of Meta-HMR through the public path: those of the checkout, and ../shared's.

Cases that compile a whole ResNet-50 are slow; one of them runs always.
"""

from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.golden import check, runner

check.load_kinds("meta_hmr")
LOCAL = Path(__file__).parent / "meta_hmr"
_ALWAYS = ("geom_", "smpl_431", "loss_", "net_cliff_meta_resnet_rect")
# Checked by tests/data, which owns their code.
_ELSEWHERE = ("data_", "geom_flips")


def _cases(directory: Path, quick: tuple[str, ...]) -> list:
    return [
        pytest.param(case, id=case.name, marks=[] if case.name.startswith(quick) else slow)
        for case in runner.cases("meta_hmr", directory)
        if not case.name.startswith(_ELSEWHERE)
    ]


slow = pytest.mark.slow


def _assert_passes(case: runner.Case) -> None:
    try:
        checks = runner.run(case)
    except runner.NotYet as reason:
        pytest.skip(str(reason))
    assert checks
    for one in checks:
        error, allowed = one.outcome()
        assert error <= allowed, f"{case.name}: {one.label}"


@pytest.mark.parametrize("case", _cases(LOCAL, _ALWAYS))
def test_case_of_the_checkout(case):
    _assert_passes(case)


@pytest.mark.skipif(
    SHARED is None, reason="the reference data ../shared is not beside this checkout"
)
@pytest.mark.parametrize(
    "case", _cases(SHARED / "golden" / "meta_hmr", ()) if SHARED is not None else []
)
def test_case_of_the_reference_data(case):
    _assert_passes(case)
