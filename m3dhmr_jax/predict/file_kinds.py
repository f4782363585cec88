"""What a file is, by its first bytes: its name may say something else."""

from pathlib import PurePath

IMAGE_SUFFIXES = {
    *(".apng", ".avif", ".bmp", ".gif", ".heic", ".heif", ".hif", ".j2k", ".jfif", ".jp2", ".jpe"),
    *(".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"),
}
VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".webm", ".wmv"),
}
# Most are TIFF files of a kind whose first image is a thumbnail.
RAW_SUFFIXES = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw"),
    *(".rw2", ".srw"),
}
VIDEO = "video"
HEAD_BYTES = 512  # Enough for `kind_of`.

_MARKS = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"P5", "PNM"),
    (b"P6", "PNM"),
    (b"\x1aE\xdf\xa3", VIDEO),  # Matroska, WebM.
    (b"FLV\x01", VIDEO),
    (b"OggS", VIDEO),
    (b"0&\xb2u\x8ef\xcf\x11", VIDEO),  # Windows Media.
    (b"\x00\x00\x01\xba", VIDEO),  # MPEG.
    (b"\x00\x00\x01\xb3", VIDEO),
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"free", b"skip")
# What is not read, and its description.
_OTHERS = (
    (b"\xff\x0a", "is JPEG XL: convert it to JPEG or PNG first"),
    (b"\x00\x00\x00\x0cJXL ", "is JPEG XL: convert it to JPEG or PNG first"),
    (b"%PDF", "is a PDF: save its pages as images first"),
    (b"8BPS", "is a Photoshop file: save it as PNG first"),
    (b"PK\x03\x04", "is an archive: unpack it first"),
    (b"\x1f\x8b", "is an archive: unpack it first"),
)
RAW_PHOTO = (
    "is a RAW photo: developing its colours is a choice, so export it as JPEG or 8-bit TIFF first"
)
_NO_IMAGE = "is not an image or a video of a kind that is read"


def kind_of(content: bytes) -> str | None:
    """The kind of an image, such as "JPEG"; VIDEO; None for everything else.

    The first HEAD_BYTES of the file are enough.
    """
    if content[4:8] == b"ftyp":
        return _kind_of_boxes(content)
    if content[:4] == b"RIFF":
        return {b"WEBP": "WebP", b"AVI ": VIDEO}.get(content[8:12])
    if content[4:8] in _OLD_QUICKTIME or _is_transport_stream(content):
        return VIDEO
    return next((kind for mark, kind in _MARKS if content.startswith(mark)), None)


def _kind_of_boxes(content: bytes) -> str | None:
    """Of an MP4, HEIC or AVIF file, by the brands in its first box."""
    size = min(int.from_bytes(content[:4], "big"), len(content))
    brands = {content[8:12], *(content[i : i + 4] for i in range(16, size - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return "AVIF"
    if brands & _HEIC_BRANDS:
        return "HEIC"
    return None if b"crx " in brands else VIDEO


def _is_transport_stream(content: bytes) -> bool:
    """Packets of 188 bytes, in .mts files of 192, each with the mark 0x47."""
    return any(
        len(content) > start + size and content[start] == content[start + size] == 0x47
        for start, size in ((0, 188), (4, 192))
    )


def why_not_read(content: bytes, name: str) -> str | None:
    """Why this is not an image that can be read, to follow its name; None if it may be one."""
    suffix = PurePath(name).suffix.lower()
    if not content:
        return "is empty: copy or download it again"
    if not any(content):
        return "contains only zeros, as an interrupted copy does: copy or download it again"
    if suffix in RAW_SUFFIXES or content[8:10] == b"CR" or content.startswith(b"FUJIFILMCCD-RAW"):
        return RAW_PHOTO
    kind = kind_of(content)
    if kind == VIDEO:
        return "is a video, and an image is needed here"
    if kind is not None:
        return None
    found = next((what for mark, what in _OTHERS if content.startswith(mark)), None)
    return found or _describe_text(content) or _NO_IMAGE


def _describe_text(content: bytes) -> str | None:
    start = content[:HEAD_BYTES].decode("utf-8", "ignore").lstrip("\ufeff \r\n\t").lower()
    if start.startswith(("<!doctype html", "<html", "<head", "<body")):
        return "is a web page and not an image: was the download a login or error page?"
    if "<svg" in start:
        return "is an SVG drawing: save it as PNG first"
    is_text = len(start) > 0 and all(each.isprintable() or each.isspace() for each in start)
    return f"is text and not an image: it starts with {start[:20]!r}" if is_text else None
