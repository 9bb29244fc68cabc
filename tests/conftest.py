"""What every test may use: the shared reference data, where it is present."""

from pathlib import Path

import pytest

_candidate = Path(__file__).resolve().parents[2] / "shared"
SHARED: Path | None = _candidate if (_candidate / "design.md").is_file() else None

needs_shared = pytest.mark.skipif(
    SHARED is None, reason="the reference data ../shared is not beside this checkout"
)


@pytest.fixture
def shared_dir() -> Path:
    """The folder of reference data; the test is skipped where there is none."""
    if SHARED is None:
        pytest.skip("the reference data ../shared is not beside this checkout")
    return SHARED
