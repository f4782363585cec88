"""Strict decoding of JPEG: what a decoder only warns about makes the image useless here.

After damaged bytes, decoders guess, and the rest of the image is shifted or has other colours.
Axes: h w image, c channels: 1 grey, 3 RGB, 4 CMYK.
"""

import re

import simplejpeg
from jaxtyping import UInt8
from numpy import ndarray

from m3dhmr_jax.errors import UserError

START_MARK, END_MARK = b"\xff\xd8", b"\xff\xd9"
SCAN = 0xDA
# Any marker but those inside of a scan: escaped 0xff, and restarts.
_MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
# What only a tolerant decoder reads: odd header fields, after which the pixels are as they should
# be, and chroma subsampling by unusual factors.
_ODD = re.compile(
    "unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters|bad ICC marker"
    "|Could not determine subsampling"
    # Some webcams write these; no pixel of a colour image takes so few.
    "|: [12] extraneous bytes before marker 0xd9"
)
_CUT = "Premature end of JPEG file"


class OddJpegError(ValueError):
    """A tolerant decoder has to be used."""


def decode_jpeg(content: bytes, colours: str, name: str) -> tuple[UInt8[ndarray, "h w c"], str]:
    """The pixels in "GRAY", "RGB" or "CMYK", and what was mended; "" if nothing.

    What cameras leave in files with complete pixels is accepted: bytes between the segments of the
    header, zeros after a scan, everything after the end mark, and a missing end mark.

    Raises:
        UserError: with the `name`, if the file is incomplete or damaged.
        OddJpegError: if it may be healthy, but is of a kind that the strict decoder does not read.
    """
    try:
        return simplejpeg.decode_jpeg(content, colours, strict=True), ""
    except ValueError as error:
        warning = str(error)
    is_cut = warning.startswith(_CUT)
    try:
        pixels = simplejpeg.decode_jpeg(tidied(content), colours, strict=True)
    except ValueError as error:
        if _ODD.search(str(error)):
            raise OddJpegError(str(error)) from error
        if is_cut:
            raise UserError(
                f"{name} is incomplete: the file ends before its pixels do; copy or download it "
                "again"
            ) from error
        raise UserError(f"{name} is damaged ({warning}): copy or download it again") from error
    return pixels, "its end mark is missing, but its pixels are complete" if is_cut else ""


def tidied(content: bytes) -> bytes:
    """The JPEG without the bytes that belong to no segment or scan, and with an end mark.

    Bytes between scans are kept: after damage they are the rest of one.
    """
    kept, at, is_header = [START_MARK], len(START_MARK), True
    while (marker := _MARKER.search(content, at)) and marker[1] != END_MARK[1:]:
        if not is_header:
            kept.append(content[at : marker.start()])
        start = marker.end()
        at = start + int.from_bytes(content[start : start + 2], "big")
        kept += [b"\xff", marker[1], content[start:at]]
        if marker[1][0] == SCAN:
            is_header = False
            following = _MARKER.search(content, at)
            end = len(content) if following is None else following.start()
            kept.append(_without_padding(content[at:end]))
            at = end
    return b"".join(kept) + END_MARK


def _without_padding(scan: bytes) -> bytes:
    """A scan ends in ones, so zeros after it are no part of it, but for an escaped 0xff."""
    bare = scan.rstrip(b"\x00")
    return bare + b"\x00" if bare.endswith(b"\xff") and bare != scan else bare
