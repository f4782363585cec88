"""Output files: drawings, meshes, a video, and one line of JSON for every frame.

Axes: v vertices, f faces, h w image.
"""

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import orjson
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.crops import Image
from m3dhmr_jax.predict.frames import Frame
from m3dhmr_jax.predict.inputs import Input
from m3dhmr_jax.predict.overlay_video import OverlayVideo
from m3dhmr_jax.predict.results import FittedPose, PredictedHands
from m3dhmr_jax.runtime.files import readable
from m3dhmr_jax.runtime.results_folder import ResultsFolder, append_line
from m3dhmr_jax.visualize.hands import HAND_COLOURS, UNSURE_COLOUR, HandDrawing
from m3dhmr_jax.visualize.overlay import draw_landmarks, draw_meshes, draw_prediction

LINES, FACES = "hands.jsonl", "faces.json"
MESH_KINDS = ("obj", "ply", "glb")
DECIMALS_M, DECIMALS_PX = 5, 2
ONE_LINE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
MAX_JPEG_PX = 65_500  # Of OpenCV's encoder.
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


def mesh_file(kind: str, verts_m: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> bytes:
    """The content of a mesh file: obj and ply in camera axes, glb in glTF's, all in metres.

    Raises:
        UserError: if a vertex is not finite, which other programs reject without a message.
    """
    invalid = np.flatnonzero(~np.isfinite(verts_m).all(axis=1))
    if len(invalid):
        raise UserError(
            f"vertex {invalid[0]} is {verts_m[invalid[0]]} ({len(invalid)} are not finite): its "
            f".{kind} file was not written"
        )
    import trimesh  # Takes half a second.

    if kind == "glb":
        verts_m = verts_m * GLTF_FROM_CAMERA
    mesh = trimesh.Trimesh(verts_m, faces, process=False)
    options: dict[str, Any] = {}
    if kind == "obj":  # Vertices and faces alone; 6 decimals are micrometres.
        options = {"include_normals": False, "include_color": False, "header": None, "digits": 6}
    content = mesh.export(file_type=kind, **options)
    content = content.encode() if isinstance(content, str) else content
    assert isinstance(content, bytes)
    return content


def jpeg_file(drawing: Image) -> bytes:
    """The content of a JPEG file.

    Raises:
        UserError: if a side is longer than a JPEG's can be.
    """
    if max(drawing.shape) > MAX_JPEG_PX:
        height, width, _ = drawing.shape
        raise UserError(f"its drawing of {width} x {height} px is too large for a JPEG")
    is_encoded, content = cv2.imencode(".jpg", drawing[..., ::-1])
    assert is_encoded
    return content.tobytes()


def as_record(
    source: Input, name: str, frame: Frame, hands: PredictedHands, camera: str
) -> dict[str, Any]:
    """One frame for JSON: metres in camera space, pixels of the image.

    `name` is what the names of its other result files start with.
    """
    height, width, _ = frame.image.shape
    return {
        "image": readable(source.source),
        "name": name,
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


def fixed_names(names: Mapping[Input, str]) -> list[str]:
    """The files of a call that do not depend on what is found."""
    return [LINES, FACES, *(_drawing_name(source, name) for source, name in names.items())]


def _drawing_name(source: Input, name: str) -> str:
    return f"{name}_hands.mp4" if source.is_video else f"{name}_overlay.jpg"


class ResultWriter:
    """Writes the files of one call, frame by frame.

    Args:
        names: what the names of each input's files start with.
        mesh_kinds: any of MESH_KINDS; None: .obj for images, nothing for videos.

    Raises:
        DiskFullError, OSError: if something cannot be written; so do all methods.
    """

    def __init__(
        self,
        folder: ResultsFolder,
        names: Mapping[Input, str],
        faces: Int[np.ndarray, "f 3"],
        mesh_kinds: tuple[str, ...] | None,
    ):
        self._folder, self._names, self._mesh_kinds = folder, names, mesh_kinds
        self._video: OverlayVideo | None = None
        folder.write(FACES, faces_as_json(faces))
        self._lines = folder.add(LINES).open("xb", buffering=0)

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.end_input()
        finally:
            self._lines.close()

    def end_input(self) -> None:
        """Completes the video of the last input."""
        video, self._video = self._video, None
        if video is not None:
            video.close()

    def write(self, source: Input, frame: Frame, hands: PredictedHands, camera: str) -> None:
        """Writes everything about a frame.

        Raises:
            UserError: if one of its files cannot be made or there is a file of its name; its line
                is written then.
        """
        name = self._names[source]
        record = as_record(source, name, frame, hands, camera)
        append_line(self._lines, orjson.dumps(record, option=ONE_LINE))
        if source.is_video:
            self._write_video(source, frame, hands)
        else:
            drawing = draw_prediction(frame.image, to_drawings(hands), hands.intrinsics)
            self._folder.write(_drawing_name(source, name), jpeg_file(drawing))
        self._write_meshes(source, frame, hands)

    def _write_video(self, source: Input, frame: Frame, hands: PredictedHands) -> None:
        if self._video is None:
            path = self._folder.add(_drawing_name(source, self._names[source]))
            height, width, _ = frame.image.shape
            self._video = OverlayVideo(path, height, width)
        self._video.write(draw_hands(frame.image, hands), frame.time_s)

    def _write_meshes(self, source: Input, frame: Frame, hands: PredictedHands) -> None:
        kinds = self._mesh_kinds
        if kinds is None:
            kinds = () if source.is_video else ("obj",)
        name = self._names[source]
        name = f"{name}_{frame.index:06d}" if source.is_video else name
        for i, mesh in enumerate(zip(hands.verts_m, hands.faces, strict=True)):
            hand_name = name if len(hands.handedness) == 1 else f"{name}_{i}"
            for kind in kinds:
                self._folder.write(f"{hand_name}.{kind}", mesh_file(kind, *mesh))


def faces_as_json(faces: Int[np.ndarray, "f 3"]) -> bytes:
    """The triangles of every "verts_m", by handedness."""
    sides = {"right": faces.tolist(), "left": faces[:, ::-1].tolist()}
    return orjson.dumps(sides, option=orjson.OPT_APPEND_NEWLINE)
