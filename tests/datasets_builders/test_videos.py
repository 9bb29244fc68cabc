"""Images that were not extracted come from the data set's videos."""

import cv2
import numpy as np
import pytest

from jaxrecon.data.items import decode_photo
from jaxrecon.data.sources import open_source
from jaxrecon.errors import UserError
from tests.datasets_builders.people import write_archive, write_photos

SHADES = (20, 70, 120, 170, 220, 250)


def write_video(path, shades=SHADES):
    """Frames of one grey each, so that each is known again after compression."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (96, 64))
    for shade in shades:
        writer.write(np.full((64, 96, 3), shade, np.uint8))
    writer.release()


@pytest.fixture
def manual(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXRECON_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("JAXRECON_MANUAL", str(tmp_path / "manual"))
    return tmp_path / "manual"


def shades(source):
    return [decode_photo(source[i]["image"], "").mean() for i in range(len(source))]


def test_h36m(manual):
    root = manual / "h36m"
    names = [f"S1_Directions_1.54138969_{frame:06d}.jpg" for frame in (1, 6, 3)]
    names += ["S1_Eating.60457274_000002.jpg", "S5_Eating.60457274_000001.jpg"]
    write_archive(root / "h36m_mosh_train_fixname.npz", names)
    write_photos(root / "images", names[-1:])
    write_video(root / "S1/Videos/Directions 1.54138969.mp4")
    write_video(root / "S1/Videos/Eating.60457274.mp4", SHADES[::-1])
    found = shades(open_source("h36m", "train"))
    np.testing.assert_allclose(found[:4], [20, 250, 120, 220], atol=8)


def test_mpi_inf_3dhp(manual):
    root = manual / "mpi_inf_3dhp"
    names = [f"S1/Seq2/imageFrames/video_4/frame_{frame:06d}.jpg" for frame in (2, 4)]
    write_archive(root / "mpi_inf_3dhp_train_name_revised.npz", names)
    with pytest.raises(UserError, match="2 of the 2 images .* are not in .*frame_000002.jpg"):
        open_source("mpi_inf_3dhp", "train")
    write_video(root / "S1/Seq2/imageSequence/video_4.avi", SHADES[:3])
    with pytest.raises(UserError, match="video_4.avi has no frame 4: 3 frames can be read"):
        open_source("mpi_inf_3dhp", "train")
    write_video(root / "S1/Seq2/imageSequence/video_4.avi")
    np.testing.assert_allclose(shades(open_source("mpi_inf_3dhp", "train")), [70, 170], atol=8)
    (root / "S1/Seq2/imageSequence/video_4.avi").write_bytes(b"")
    open_source("mpi_inf_3dhp", "train")  # prepared is prepared
