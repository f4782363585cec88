"""Image files of any kind as upright RGB, and the camera's focal length from their EXIF data.

Axes: h w image.
"""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.TiffImagePlugin
from jaxtyping import Float, UInt8
from pillow_heif import HeifImageFile

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.cameras import intrinsics_from_focal_35mm
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.file_kinds import RAW_PHOTO, kind_of, why_not_read
from m3dhmr_jax.predict.jpeg import OddJpegError, decode_jpeg
from m3dhmr_jax.runtime.files import readable

# The largest cameras have 200 million; in memory, 268 million take 0.8 GB.
MAX_PIXELS = 2**28
# One limit for all kinds of files; Pillow's own is lower than some cameras' images.
PIL.Image.MAX_IMAGE_PIXELS = MAX_PIXELS
PILLOW_NAMES = {"WebP": "WEBP", "JPEG 2000": "JPEG2000", "PNM": "PPM"}
MOVING_KINDS = ("AVIF", "GIF", "PNG", "WebP")
# EXIF tags: orientation, the camera's folder, and its 35 mm equivalent focal length.
EXIF_ORIENTATION, EXIF_FOLDER, EXIF_FOCAL_35MM = 0x0112, 0x8769, 0xA405
TIFF_BITS, TIFF_DNG_VERSION = 258, 50706
JPEG_COLOURS = {"L": "GRAY", "RGB": "RGB", "CMYK": "CMYK"}


class DecodedImage(NamedTuple):
    """An upright image."""

    image: Image
    # From EXIF, if present.
    intrinsics: Float[np.ndarray, "3 3"] | None
    # What was converted or left out; "" if nothing.
    note: str


class OpenImage(NamedTuple):
    """An image file whose header is known, at one of its frames."""

    name: str
    content: bytes
    kind: str
    pillow: PIL.Image.Image


def as_image(image: np.ndarray) -> tuple[Image, str]:
    """The image as RGB, and what was converted; "" if nothing.

    Raises:
        UserError: if it is not 8-bit, not of an image's shape, or empty.
    """
    image = np.asarray(image)
    if image.dtype != np.uint8:
        bits = f"{8 * image.dtype.itemsize}-bit" if image.dtype.kind in "iu" else "not 8-bit"
        raise _depth_error(f"{bits} ({image.dtype})")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in image.shape:
        raise UserError(f"the image has shape {image.shape}: it must be (h, w, 3), RGB")
    if channels == 1:
        grey = image.reshape(*image.shape[:2], 1)
        return np.repeat(grey, 3, axis=2), "the image has one channel: taken as grey"
    if channels == 4:
        return image[..., :3], "the image has an alpha channel: it is ignored"
    return image, ""


def _depth_error(depth: str) -> UserError:
    return UserError(
        f"the image is {depth}: it must be uint8; the right tone mapping is not known here, so "
        "map its values to 0..255 first"
    )


def read_image(path: Path) -> DecodedImage:
    """An image from a file, rotated as the file says.

    Raises:
        UserError: if it cannot be read, is not an image, is damaged, or is not 8-bit.
    """
    return decode_image(np.frombuffer(read_content(path), np.uint8), readable(path))


def read_content(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise UserError(f"{readable(path)} is a folder, and an image is needed here") from error
    except OSError as error:
        raise UserError(f"{readable(path)} cannot be read: {error.strerror}") from error


def decode_image(content: UInt8[np.ndarray, " n"], name: str) -> DecodedImage:
    """The image in a file's content, as `read_image`; of several, the first or main one.

    Raises:
        UserError: with the `name`, if it is not an image, is damaged, or is not 8-bit.
    """
    opened = open_image(content.tobytes(), name)
    n_frames = count_frames(opened)
    decoded = decode_frame(opened)
    if n_frames == 1:
        return decoded
    note = f"it has {n_frames} images: only the {_main(opened.kind)} is read"
    return decoded._replace(note=_join(decoded.note, f"{name}: {note}"))


def _main(kind: str) -> str:
    return "main one" if kind == "HEIC" else "first"


def _join(*notes: str) -> str:
    return "; ".join(filter(None, notes))


def is_moving_image(path: Path) -> bool:
    """Whether an image file has several frames that follow each other in time."""
    formats = [PILLOW_NAMES.get(kind, kind) for kind in MOVING_KINDS]
    try:
        with PIL.Image.open(path, formats=formats) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # `open_image` says what is wrong with it.
        return False


def open_image(content: bytes, name: str) -> OpenImage:
    """Reads the header of an image, and checks that the file is complete as far as it says.

    Raises:
        UserError: with the `name`, if it is not an image, is too large, or is damaged.
    """
    reason = why_not_read(content, name)
    if reason is not None:
        raise UserError(f"{name} {reason}")
    kind = kind_of(content)
    assert kind is not None
    if _is_cut(content, kind):
        raise UserError(
            f"{name} is incomplete: the file ends before its pixels do; copy or download it again"
        )
    with _name_damage(name, kind):
        if kind == "PNG":
            PIL.Image.open(io.BytesIO(content), formats=["PNG"]).verify()  # The checksums.
        if kind == "HEIC":
            pillow: PIL.Image.Image = HeifImageFile(io.BytesIO(content))
        else:
            pillow = PIL.Image.open(io.BytesIO(content), formats=[PILLOW_NAMES.get(kind, kind)])
    _check_size(name, *pillow.size)
    return OpenImage(name, content, kind, pillow)


def count_frames(opened: OpenImage) -> int:
    """How many images a file has.

    Raises:
        UserError: with its name, if it is damaged.
    """
    if opened.kind == "JPEG":  # The later ones are previews and depth maps.
        return 1
    with _name_damage(opened.name, opened.kind):
        return getattr(opened.pillow, "n_frames", 1)


def _check_size(name: str, width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise UserError(
            f"{name} has {width} x {height} = {width * height / 1e6:.0f} million pixels: at most "
            f"{MAX_PIXELS / 1e6:.0f} million fit into memory safely, so make it smaller or cut it"
        )


def _is_cut(content: bytes, kind: str) -> bool:
    """Whether the file is shorter than its own lengths say; False where there are none."""
    if kind == "WebP":
        return int.from_bytes(content[4:8], "little") + 8 > len(content)
    if kind not in ("AVIF", "HEIC"):
        return False
    at = 0
    while at + 8 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if size == 1:  # A length of 64 bits follows.
            size = int.from_bytes(content[at + 8 : at + 16], "big")
        if size < 8:  # 0: up to the end.
            return False
        at += size
    return at > len(content)


@contextlib.contextmanager
def _name_damage(name: str, kind: str) -> Iterator[None]:
    """Turns what a decoder raises about a file into a UserError."""
    try:
        yield
    except (UserError, MemoryError, OddJpegError):
        raise
    except PIL.Image.DecompressionBombError as error:
        raise UserError(
            f"{name} has more than {MAX_PIXELS / 1e6:.0f} million pixels, which do not fit into "
            f"memory safely: make it smaller or cut it ({error})"
        ) from error
    except Exception as error:  # Decoders raise anything when they meet damaged bytes.
        if "truncated" in str(error).lower():
            raise UserError(
                f"{name} is incomplete: the file ends before its pixels do; copy or download it "
                "again"
            ) from error
        is_told = str(error) and "BytesIO" not in str(error)
        raise UserError(
            f"{name} is damaged: its content is no valid {kind}"
            f"{f' ({error})' if is_told else ''}; copy or download it again"
        ) from error


def decode_frame(opened: OpenImage) -> DecodedImage:
    """The pixels of the frame at which an open image is.

    Raises:
        UserError: with its name, if it is damaged or not 8-bit.
    """
    name, kind, pillow = opened.name, opened.kind, opened.pillow
    focal_mm = focal_35mm(pillow)  # Before decoding, after which Pillow forgets that of a TIFF.
    with _name_damage(name, kind):
        if kind == "JPEG":
            pixels, note = _decode_jpeg(opened)
        else:
            _check_tiff_or_depth(opened)
            pillow.load()
            pixels, note = _as_rgb(pillow, name)
    image = _upright(pixels, _orientation(pillow))
    height, width = image.shape[:2]
    k = intrinsics_from_focal_35mm(float(focal_mm), width, height) if focal_mm else None
    return DecodedImage(image, k, f"{name}: {note}" if note else "")


def _decode_jpeg(opened: OpenImage) -> tuple[Image, str]:
    pillow = opened.pillow
    try:
        pixels, mended = decode_jpeg(opened.content, JPEG_COLOURS[pillow.mode], opened.name)
    except OddJpegError:
        return _as_rgb(pillow, opened.name)
    if pillow.mode == "CMYK":  # Stored as light, not as ink.
        inks = PIL.Image.frombytes("CMYK", pillow.size, (255 - pixels).tobytes())
        pixels, note = _from_inks(inks, pillow.info.get("icc_profile"))
    else:
        pixels, note = as_image(pixels)
    return pixels, _join(note, mended)


def _check_tiff_or_depth(opened: OpenImage) -> None:
    """Raises UserError for what Pillow would silently read as 8-bit, or as a thumbnail."""
    name, content, pillow = opened.name, opened.content, opened.pillow
    bits = 8
    if opened.kind == "PNG":
        bits = content[24]
    elif opened.kind == "JPEG 2000":
        bits = content[content.find(b"\xff\x51") + 40] % 128 + 1
    elif isinstance(pillow, PIL.TiffImagePlugin.TiffImageFile):
        bits = max(pillow.tag_v2.get(TIFF_BITS, (1,)))
        if TIFF_DNG_VERSION in pillow.tag_v2:
            raise UserError(f"{name} {RAW_PHOTO}")
    if bits > 8 and pillow.mode != "F":
        raise UserError(f"{name}: {_depth_error(f'{bits}-bit (uint{bits})')}")


def _as_rgb(image: PIL.Image.Image, name: str) -> tuple[Image, str]:
    """The pixels of any mode of Pillow's, and what was converted."""
    if image.mode in ("1", "L"):
        return as_image(np.array(image.convert("L")))
    if image.mode == "CMYK":
        return _from_inks(image, image.info.get("icc_profile"))
    if image.mode == "F" or image.mode.startswith("I"):
        try:
            return as_image(np.asarray(image))
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
    if image.mode not in ("LA", "P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "La", "YCbCr"):
        raise UserError(f"{name} has the colours {image.mode}: save it as RGB first")
    if image.has_transparency_data:
        with_alpha = np.array(image.convert("RGBA"))
        if (with_alpha[..., 3] < 255).any():
            return as_image(with_alpha)
        return with_alpha[..., :3], ""
    return np.array(image.convert("RGB")), ""


def _from_inks(image: PIL.Image.Image, profile: bytes | None) -> tuple[Image, str]:
    """CMYK as RGB: by the colour profile of the file, else by the simple formula."""
    note = "the image has CMYK colours: converted to RGB"
    if profile:
        try:
            srgb = PIL.ImageCms.createProfile("sRGB")
            rgb = PIL.ImageCms.profileToProfile(image, io.BytesIO(profile), srgb, outputMode="RGB")
            assert rgb is not None
            return np.array(rgb), note
        except (OSError, PIL.ImageCms.PyCMSError):
            note += "; its colour profile is invalid"
    return np.array(image.convert("RGB")), note


def _upright(pixels: Image, orientation: int) -> UInt8[np.ndarray, "upright_h upright_w 3"]:
    """Undoes one of EXIF's eight orientations."""
    if orientation in (5, 6, 7, 8):
        pixels = cv2.transpose(pixels)
    flips = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}
    return cv2.flip(pixels, flips[orientation]) if orientation in flips else pixels


def _orientation(image: PIL.Image.Image) -> int:
    return _whole_number(_exif(image).get(EXIF_ORIENTATION))


def focal_35mm(image: PIL.Image.Image) -> int:
    """The 35 mm equivalent focal length in mm; 0 if the EXIF data do not give it."""
    try:
        return _whole_number(_exif(image).get_ifd(EXIF_FOLDER).get(EXIF_FOCAL_35MM))
    except Exception:  # As `_exif`.
        return 0


def _exif(image: PIL.Image.Image) -> PIL.Image.Exif:
    """Empty if damaged: an image may be healthy without its EXIF data."""
    try:
        return image.getexif()
    except Exception:  # Parsing damaged folders raises anything.
        return PIL.Image.Exif()


def _whole_number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
