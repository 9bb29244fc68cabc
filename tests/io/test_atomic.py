import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import atomic_path, write_text


def test_the_file_appears_whole_and_makes_its_folders(tmp_path):
    target = tmp_path / "new" / "deeper" / "arrays.npz"
    with atomic_path(target) as scratch:
        assert scratch.suffix == ".npz" and scratch.parent == target.parent
        np.savez(scratch, a=np.arange(3))
        assert not target.exists()
    assert np.load(target)["a"].tolist() == [0, 1, 2]
    assert os.listdir(target.parent) == ["arrays.npz"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "page.html"
    write_text(target, "old")
    with pytest.raises(KeyError), atomic_path(target) as scratch:
        scratch.write_text("half")
        raise KeyError("in the middle")
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_killed_writer_leaves_the_old_file(tmp_path):
    target = tmp_path / "page.txt"
    write_text(target, "old")
    code = (
        "import sys, time\n"
        "from jaxrecon.io.atomic import atomic_path\n"
        "with atomic_path(sys.argv[1]) as scratch:\n"
        "    scratch.write_text('half')\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"writing\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert target.read_text() == "old"


def test_forgetting_to_write_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match="nothing was written"), atomic_path(tmp_path / "a"):
        pass


@pytest.mark.parametrize("make", ["folder", "below_a_file"])
def test_impossible_targets_are_named(tmp_path, make):
    if make == "folder":
        target = tmp_path
    else:
        (tmp_path / "file").write_text("x")
        target = tmp_path / "file" / "out.txt"
    with pytest.raises(UserError, match="cannot"):
        write_text(target, "text")


def test_two_writers_do_not_meet(tmp_path):
    target = tmp_path / "out.txt"
    with atomic_path(target) as first, atomic_path(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer one ends last
