"""Output files: drawings, meshes, a video, and one line of JSON for every frame.

Axes: v vertices, f faces, h w image.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.frames import Frame, Input
from m3dhmr_jax.predict.results import FittedPose, PredictedHands
from m3dhmr_jax.visualize.hands import HAND_COLOURS, UNSURE_COLOUR, HandDrawing
from m3dhmr_jax.visualize.overlay import draw_landmarks, draw_meshes, draw_prediction

MESH_KINDS = ("obj", "ply", "glb")
DECIMALS_M, DECIMALS_PX = 5, 2
ONE_LINE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
# glTF's axes: x right, y up, z towards the viewer.
GLTF_FROM_CAMERA = np.array([1.0, -1.0, -1.0])
# The arrays of a hand, under the same names in PredictedHands, hands.jsonl and Parquet files.
HAND_ARRAYS = (
    "verts_m",
    "joints_m",
    "landmarks_px",
    "root_m",
    "root_covariance_m2",
    "noise_px",
    "handedness_probability",
    "score",
    "is_unsure",
    "crop_px",
    "direction_rad",
)


def to_drawings(hands: PredictedHands) -> list[HandDrawing]:
    """The hands as they are drawn: each track in its own colour, unsure ones in grey."""
    colours = [
        UNSURE_COLOUR if is_unsure else HAND_COLOURS[track % len(HAND_COLOURS)]
        for track, is_unsure in zip(hands.track.tolist(), hands.is_unsure.tolist(), strict=True)
    ]
    columns = hands.landmarks_px, hands.verts_m, hands.faces, colours
    return [HandDrawing(*each) for each in zip(*columns, strict=True)]


def draw_hands(image: Image, hands: PredictedHands) -> Image:
    """The image with all meshes and skeletons on it, for video."""
    drawings = to_drawings(hands)
    return draw_landmarks(draw_meshes(image, drawings, hands.intrinsics, samples=1), drawings)


def write_mesh(
    path: Path, verts_m: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> None:
    """A mesh file by its suffix: .obj and .ply in camera axes, .glb in glTF's, all in metres.

    Raises:
        UserError: if a vertex is not finite, which other programs reject without a message.
    """
    invalid = np.flatnonzero(~np.isfinite(verts_m).all(axis=1))
    if len(invalid):
        raise UserError(
            f"vertex {invalid[0]} is {verts_m[invalid[0]]} ({len(invalid)} are not finite): "
            f"{path} was not written"
        )
    import trimesh  # Takes half a second.

    if path.suffix == ".glb":
        verts_m = verts_m * GLTF_FROM_CAMERA
    mesh = trimesh.Trimesh(verts_m, faces, process=False)
    options: dict[str, Any] = {}
    if path.suffix == ".obj":  # Vertices and faces alone; 6 decimals are micrometres.
        options = {"include_normals": False, "include_color": False, "header": None, "digits": 6}
    mesh.export(path, **options)


def as_record(source: Input, frame: Frame, hands: PredictedHands, camera: str) -> dict[str, Any]:
    """One frame for JSON: metres in camera space, pixels of the image."""
    height, width, _ = frame.image.shape
    return {
        "image": source.source,
        "frame": frame.index,
        "time_s": round(frame.time_s, 4),
        "width": width,
        "height": height,
        "K": np.round(hands.intrinsics, 4),
        "camera": camera,
        "method": hands.method,
        "hands": [
            {"track": int(hands.track[i]), "handedness": side}
            | {name: _rounded(name, getattr(hands, name)[i]) for name in HAND_ARRAYS}
            | ({} if hands.pose is None else _pose_record(hands.pose, i))
            for i, side in enumerate(hands.handedness)
        ],
    }


def _pose_record(pose: FittedPose, i: int) -> dict[str, Any]:
    """The rotations as axis-angle vectors, and the shape."""
    rotations = Rotation.from_matrix(pose.rotations[i]).as_rotvec()
    return {"pose_rad": _rounded("", rotations), "shape": _rounded("", pose.shape[i])}


def _rounded(name: str, values: Any) -> Any:
    """In float32, whose shortest decimal form is what JSON gets."""
    if name.endswith("_m2") or name.startswith("is_"):  # Many orders of magnitude; yes or no.
        return values
    decimals = DECIMALS_PX if name.endswith("_px") else DECIMALS_M
    rounded = np.ascontiguousarray(np.round(values, decimals), np.float32)
    return rounded.reshape(np.shape(values))[()]


class ResultWriter:
    """Writes the files of one call, frame by frame.

    Args:
        out: the folder; created if missing.
        mesh_kinds: any of MESH_KINDS; None: .obj for images, nothing for videos.

    Raises:
        UserError: if the folder cannot be created.
    """

    def __init__(
        self, out: Path, faces: Int[np.ndarray, "f 3"], mesh_kinds: tuple[str, ...] | None
    ):
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--out {out}: {error.strerror}; choose a folder that you may write"
            ) from error
        self._out = out
        self._mesh_kinds = mesh_kinds
        self._lines = (out / "hands.jsonl").open("wb")
        self._video: ConstantRateVideoWriter | None = None
        (out / "faces.json").write_bytes(faces_as_json(faces))

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.end_input()
        self._lines.close()

    def end_input(self) -> None:
        """Completes the video of the last input."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def write(self, source: Input, frame: Frame, hands: PredictedHands, camera: str) -> None:
        """Writes everything about a frame."""
        record = as_record(source, frame, hands, camera)
        self._lines.write(orjson.dumps(record, option=ONE_LINE))
        self._lines.flush()
        if source.is_video:
            if self._video is None:
                path = self._out / f"{source.name}_hands.mp4"
                self._video = ConstantRateVideoWriter(path, frame)
            self._video.write(draw_hands(frame.image, hands), frame.time_s)
        else:
            drawing = draw_prediction(frame.image, to_drawings(hands), hands.intrinsics)
            jpeg = cv2.imencode(".jpg", drawing[..., ::-1])[1]  # cv2.imwrite hides a full disk.
            (self._out / f"{source.name}_overlay.jpg").write_bytes(jpeg.tobytes())
        self._write_meshes(source, frame, hands)

    def _write_meshes(self, source: Input, frame: Frame, hands: PredictedHands) -> None:
        kinds = self._mesh_kinds
        if kinds is None:
            kinds = () if source.is_video else ("obj",)
        name = f"{source.name}_{frame.index:06d}" if source.is_video else source.name
        for i, mesh in enumerate(zip(hands.verts_m, hands.faces, strict=True)):
            hand_name = name if len(hands.handedness) == 1 else f"{name}_{i}"
            for kind in kinds:
                write_mesh(self._out / f"{hand_name}.{kind}", *mesh)


def faces_as_json(faces: Int[np.ndarray, "f 3"]) -> bytes:
    """The triangles of every "verts_m", by handedness."""
    sides = {"right": faces.tolist(), "left": faces[:, ::-1].tolist()}
    return orjson.dumps(sides, option=orjson.OPT_APPEND_NEWLINE)


class ConstantRateVideoWriter:
    """A video of constant frame rate: where frames are missing, the next one is repeated."""

    def __init__(self, path: Path, first: Frame):
        height, width, _ = first.image.shape
        self._path, self._rate_hz, self._start_s = path, first.rate_hz, first.time_s
        self._size = width, height
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), codec, first.rate_hz, self._size)
        if not self._writer.isOpened():
            raise UserError(f"{path}: OpenCV cannot write a video of {width} x {height} px there")
        self._written = 0

    def write(self, drawing: Image, time_s: float) -> None:
        """Appends a frame.

        Raises:
            UserError: if it is of another size than the first one.
        """
        height, width, _ = drawing.shape
        if (width, height) != self._size:
            raise UserError(
                f"{self._path}: a frame of {width} x {height} px after frames of "
                f"{self._size[0]} x {self._size[1]} px was left out of the video"
            )
        pixels = cv2.cvtColor(drawing, cv2.COLOR_RGB2BGR)
        until = max(round((time_s - self._start_s) * self._rate_hz), self._written) + 1
        for _ in range(until - self._written):
            self._writer.write(pixels)
        self._written = until

    def close(self) -> None:
        self._writer.release()
