"""The data pipeline against the published one: small cases of the checkout, all of ../shared."""

from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.golden import runner
from tests.golden.kinds import meta_hmr_data  # noqa: F401  (registers the kinds)

LOCAL = Path(__file__).resolve().parents[1] / "golden" / "meta_hmr"
PREFIXES = ("data_", "geom_flips")


def cases(directory):
    found = runner.cases("meta_hmr", directory)
    return [case for case in found if case.name.startswith(PREFIXES)]


LOCAL_CASES = cases(LOCAL)
SHARED_CASES = cases(SHARED / "golden" / "meta_hmr") if SHARED else []


def judge(case):
    assert case.kind, f"{case.name} is of no known kind"
    checks = runner.run(case)
    assert checks
    for check in checks:
        error, allowed = check.outcome()
        assert error <= allowed, f"{case.name} {check.label}: {error} > {allowed}"


@pytest.mark.parametrize("case", LOCAL_CASES, ids=lambda case: case.name)
def test_case_of_the_checkout(case):
    judge(case)


def test_the_checkout_has_cases():
    assert {case.kind for case in LOCAL_CASES} >= {"data_affine", "data_mixing", "geom_flips"}


@pytest.mark.parametrize("case", SHARED_CASES, ids=lambda case: case.name)
def test_case_of_the_shared_data(case):
    judge(case)
