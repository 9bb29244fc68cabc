import struct

import cv2
import numpy as np
import pytest

from jaxrecon.errors import UserError
from jaxrecon.io.images import check_image, decode_image, encode_image, read_image, write_image


def picture(height=48, width=64):
    """Smooth colours, so that JPEG keeps them closely; the corners differ."""
    y, x = np.mgrid[:height, :width]
    channels = [255 * x / (width - 1), 255 * y / (height - 1), np.full((height, width), 80.0)]
    return np.stack(channels, -1).astype(np.uint8)


@pytest.mark.parametrize("suffix, tolerance", [(".png", 0), (".jpg", 8), (".webp", 12)])
def test_round_trip_keeps_rgb_order(tmp_path, suffix, tolerance):
    path = tmp_path / ("image" + suffix)
    write_image(path, picture())
    got = read_image(path)
    assert got.dtype == np.uint8 and got.flags.c_contiguous
    assert np.abs(got.astype(int) - picture()).max() <= tolerance


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def test_exif_orientation_is_respected():
    jpeg = with_exif_orientation(encode_image(picture(), ".jpg"), 6)  # "rotate 90 clockwise"
    got = decode_image(jpeg).astype(int)
    want = np.rot90(picture(), -1).astype(int)
    assert got.shape == want.shape
    assert np.abs(got - want).max() <= 8


def test_grey_deep_and_transparent_images_become_rgb():
    grey = np.linspace(0, 255, 12 * 10).reshape(12, 10).astype(np.uint8)
    as_png = cv2.imencode(".png", grey.astype(np.uint16) * 257)[1].tobytes()
    assert np.array_equal(decode_image(as_png), np.repeat(grey[..., None], 3, -1))
    rgba = np.dstack([picture()[..., ::-1], np.zeros((48, 64), np.uint8)])
    as_png = cv2.imencode(".png", rgba)[1].tobytes()
    assert np.array_equal(decode_image(as_png), picture())


def test_progressive_jpeg_is_accepted():
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 2]
    jpeg = cv2.imencode(".jpg", picture()[..., ::-1], options)[1].tobytes()
    assert np.abs(decode_image(jpeg).astype(int) - picture()).max() <= 8
    assert decode_image(jpeg + b"trailing bytes of a phone").shape == (48, 64, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_every_truncation_is_noticed(suffix):
    data = encode_image(picture(), suffix)
    # What follows the end marker's place is only that marker (JPEG) or a check sum (PNG).
    for cut in np.linspace(3, len(data) - 1, 40).astype(int):
        with pytest.raises(UserError, match="damaged|not an image"):
            decode_image(data[:cut], "cut" + suffix)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_check_finds_what_decoding_would(suffix):
    data = encode_image(picture(), suffix)
    check_image(data, "whole" + suffix)
    for cut in (3, len(data) // 2, len(data) - 1):
        with pytest.raises(UserError, match=f"cut{suffix}.*damaged|cut{suffix} is not an image"):
            check_image(data[:cut], "cut" + suffix)


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_overwritten_bytes_are_noticed(suffix):
    noise = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)
    data = bytearray(encode_image(noise, suffix))
    middle = len(data) // 2
    data[middle : middle + 2000] = np.random.default_rng(1).bytes(2000)
    with pytest.raises(UserError, match="damaged"):
        decode_image(bytes(data), "image" + suffix)


def test_bad_paths_and_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such image: .*absent.jpg"):
        read_image(tmp_path / "absent.jpg")
    with pytest.raises(UserError, match="is a folder, not an image"):
        read_image(tmp_path)
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(UserError, match="empty.jpg is empty"):
        read_image(tmp_path / "empty.jpg")
    (tmp_path / "page.jpg").write_text("<html>not found</html>")
    with pytest.raises(UserError, match="page.jpg is not an image"):
        read_image(tmp_path / "page.jpg")
    with pytest.raises(UserError, match="use one of .png"):
        write_image(tmp_path / "image.xyz", picture())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty.jpg", "page.jpg"]


def test_real_photographs_are_read(shared_dir):
    photos = shared_dir / "data" / "photos"
    paths = sorted(photos.rglob("*.jpg"))
    assert paths
    for path in paths:
        assert read_image(path).ndim == 3
