"""The official archives: fetched only with a known checksum, unpacked only inside their folder."""

import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tqdm import tqdm

from m3dhmr_jax.errors import UserError

URLS = (
    "https://lmb.informatik.uni-freiburg.de/data/freihand/FreiHAND_pub_v2.zip",
    "https://lmb.informatik.uni-freiburg.de/data/freihand/FreiHAND_pub_v2_eval.zip",
)

SOURCE = Path("data/FreiHAND_pub_v2")  # `data.source.folder` in configs/resnet18.py.


def fetch(dl_manager: tfds.download.DownloadManager, known: Mapping[str, object]) -> Path:
    """Downloads, checks and unpacks FreiHAND; returns its folder.

    Raises:
        UserError: if `known` lacks the checksum of an archive (nothing is downloaded then), or a
            download fails or has another checksum.
    """
    unknown = [url for url in URLS if url not in known]
    if unknown:
        raise UserError(
            f"no checksum is recorded for {', '.join(unknown)}, so nothing was downloaded. Either "
            "unpack FreiHAND_pub_v2.zip and FreiHAND_pub_v2_eval.zip into one folder and pass that "
            "folder, or record the size and sha256 of archives that you trust in "
            "tfds_freihand/checksums.tsv (tfds_freihand/README.md shows the command)"
        )
    folder = Path(dl_manager.download_dir) / "freihand_unpacked"
    if not folder.is_dir():
        unpack([_download(dl_manager, url) for url in URLS], folder)
    return folder


def _download(dl_manager: tfds.download.DownloadManager, url: str) -> Path:
    try:
        return Path(dl_manager.download(url))
    except (
        NonMatchingChecksumError,
        tfds.download.DownloadError,
        requests.RequestException,
    ) as error:
        raise UserError(
            f"{url}: the download failed ({str(error).splitlines()[0]}); try again, or unpack the "
            "archives yourself and pass their folder"
        ) from error


def unpack(archives: list[Path], folder: Path) -> None:
    """Unpacks archives into one folder, which appears only when it is complete.

    The annotation files decide where an archive's layout starts: some have a folder around it.

    Raises:
        UserError: if a member would be written outside `folder` or is a link, or if an archive
            is not FreiHAND's or is corrupted.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    incomplete = Path(tempfile.mkdtemp(prefix=f"incomplete_{folder.name}_", dir=folder.parent))
    try:
        for archive in archives:
            _unpack_one(archive, incomplete)
        incomplete.rename(folder)
    finally:
        shutil.rmtree(incomplete, ignore_errors=True)


def _unpack_one(archive: Path, target: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            for member in members:
                _check_member(member, archive)
            start = _layout_start(members, archive)
            for member in tqdm(members, archive.name, leave=False, disable=None):
                name = PurePosixPath(member.filename)
                if not name.is_relative_to(start):
                    continue
                path = target / name.relative_to(start)
                path.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(member) as source, path.open("wb") as copy:
                    shutil.copyfileobj(source, copy)
    except zipfile.BadZipFile as error:
        raise UserError(f"{archive}: corrupted archive ({error}); get it again") from error


def _check_member(member: zipfile.ZipInfo, archive: Path) -> None:
    name = PurePosixPath(member.filename)
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    if name.is_absolute() or ".." in name.parts or "\\" in member.filename or is_link:
        raise UserError(
            f"{archive}: member {member.filename!r} is a link or points outside the folder; "
            "this is not an official archive, so nothing was unpacked"
        )


def _layout_start(members: list[zipfile.ZipInfo], archive: Path) -> PurePosixPath:
    annotations = {"training_xyz.json", "evaluation_xyz.json"}
    for member in members:
        name = PurePosixPath(member.filename)
        if name.name in annotations:
            return name.parent
    raise UserError(
        f"{archive}: contains neither of {sorted(annotations)}; expected FreiHAND_pub_v2.zip or "
        "FreiHAND_pub_v2_eval.zip"
    )
