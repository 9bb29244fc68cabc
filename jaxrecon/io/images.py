"""Images in and out: RGB, uint8, upright, and never half of one."""

import os
import zlib

import cv2
import numpy as np
from jaxtyping import UInt8

from jaxrecon.errors import UserError
from jaxrecon.io.atomic import write_bytes
from jaxrecon.io.files import existing_file

Image = UInt8[np.ndarray, "height width 3"]

# What a folder of photographs may hold.
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_WRITABLE = (".png", ".jpg", ".jpeg", ".webp")


def read_image(path: str | os.PathLike[str]) -> Image:
    """The image in a file as RGB, turned upright by its EXIF orientation.

    Grey images are repeated to three channels, 16-bit ones scaled to 8, alpha is dropped.

    Returns:
      (height, width, 3) uint8.

    Raises:
      UserError: the file is missing, a folder, empty, truncated, corrupt or not an image.
    """
    file = existing_file(path, "image")
    return decode_image(file.read_bytes(), str(file))


def decode_image(data: bytes, name: str = "image") -> Image:
    """The image in encoded bytes (JPEG, PNG, WebP, BMP, TIFF ...); see `read_image`.

    Args:
      data: the encoded file.
      name: what to call it in an error message.
    """
    return np.ascontiguousarray(_decode(data, name, cv2.IMREAD_COLOR)[:, :, ::-1])


def check_image(data: bytes, name: str = "image") -> None:
    """Raises what `decode_image` would, in a fraction of its time: for many images at once."""
    _decode(data, name, cv2.IMREAD_REDUCED_GRAYSCALE_8)


def _decode(data: bytes, name: str, mode: int) -> np.ndarray:
    """What OpenCV makes of encoded bytes in one of its modes; see `decode_image`."""
    if data[:2] == b"\xff\xd8":
        # Some libjpeg builds fill what is missing with grey and only print a warning, so the
        # file's own structure is checked first.
        fault = _jpeg_fault(data)
    elif data[:8] == _PNG_SIGNATURE:
        fault = _png_fault(data)
    else:
        fault = ""
    if fault:
        raise UserError(f"the image {name} is damaged: {fault}; get or export it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
    except cv2.error:  # for example: more pixels than OpenCV agrees to decode
        image = None
    if image is None:
        raise UserError(
            f"{name} is not an image this program can read (it reads JPEG, PNG, WebP, BMP and "
            "TIFF), or it is damaged; convert or export it again"
        )
    return image


def encode_image(image: Image, suffix: str = ".png", quality: int = 95) -> bytes:
    """An RGB image as the bytes of a .png, .jpg or .webp file.

    Args:
      image: (height, width, 3) uint8.
      suffix: the format, with its dot.
      quality: 1..100, for JPEG and WebP.
    """
    suffix = suffix.lower()
    if suffix not in _WRITABLE:
        raise UserError(f"cannot write an image as {suffix!r}; use one of {', '.join(_WRITABLE)}")
    options = []
    if suffix in (".jpg", ".jpeg"):
        options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    elif suffix == ".webp":
        options = [cv2.IMWRITE_WEBP_QUALITY, quality]
    done, encoded = cv2.imencode(suffix, np.ascontiguousarray(image[:, :, ::-1]), options)
    if not done:
        raise UserError(f"could not encode an image of shape {image.shape} as {suffix}")
    return encoded.tobytes()


def write_image(path: str | os.PathLike[str], image: Image, quality: int = 95) -> None:
    """Write an RGB image by suffix (.png, .jpg, .webp), whole or not at all.

    Args:
      path: the file to write; missing folders are made.
      image: (height, width, 3) uint8.
      quality: 1..100, for JPEG and WebP.

    Raises:
      UserError: the suffix is not one of those, or the path cannot be written.
    """
    write_bytes(path, encode_image(image, os.path.splitext(path)[1], quality))


def _jpeg_fault(data: bytes) -> str:
    """What is wrong with the segments of a JPEG file (ITU-T T.81, annex B), or nothing."""
    position, size, in_scan = 2, len(data), False
    while True:
        if in_scan:
            position = data.find(b"\xff", position)
            if position < 0:
                return "it ends in the middle of the picture"
        elif position < size and data[position] != 0xFF:
            return f"no segment begins at byte {position}"
        while position < size and data[position] == 0xFF:  # a marker may be padded by more of them
            position += 1
        if position >= size:
            return "it ends before the end of the picture"
        marker, position = data[position], position + 1
        if in_scan and (marker == 0x00 or 0xD0 <= marker <= 0xD7):
            continue  # a stuffed 0xFF byte, or a restart marker
        if marker == 0xD9:
            return "" if in_scan else "it ends before the picture begins"
        if marker < 0xC0 or 0xD0 <= marker <= 0xD8:
            return f"unknown marker 0xff{marker:02x} at byte {position - 2}"
        length = int.from_bytes(data[position : position + 2], "big")
        if length < 2:
            return f"a segment of impossible length at byte {position}"
        position, in_scan = position + length, in_scan or marker == 0xDA


def _png_fault(data: bytes) -> str:
    """What is wrong with the chunks of a PNG file (their lengths and check sums), or nothing."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        if end + 4 > len(data):
            break
        chunk = data[position + 4 : end]
        if zlib.crc32(chunk) != int.from_bytes(data[end : end + 4], "big"):
            return f"the check sum of a chunk at byte {position} is wrong"
        if chunk[:4] == b"IEND":
            return ""
        position = end + 4
    return "it ends before the end of the picture"
