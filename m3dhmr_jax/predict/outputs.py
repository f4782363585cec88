"""What is written of an answer: pictures, meshes, a video, and one line of JSON for every frame.

Axes: v vertices, f faces, h w photo.
"""

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import orjson
from jaxtyping import Float, Int

from m3dhmr_jax.predict.crops import Photo
from m3dhmr_jax.predict.frames import Frame, Input
from m3dhmr_jax.predict.predictor import SIDES, PredictedHands
from m3dhmr_jax.visualize.hands import HAND_COLOURS, HandDrawing
from m3dhmr_jax.visualize.overlay import draw_landmarks, draw_meshes, draw_prediction

MESH_KINDS = ("obj", "ply", "glb")
DECIMALS_M, DECIMALS_PX = 5, 2
ONE_LINE = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_APPEND_NEWLINE
# glTF's axes: x right, y up, z towards the viewer.
GLTF_FROM_CAMERA = np.array([1.0, -1.0, -1.0])


def to_drawings(hands: PredictedHands) -> list[HandDrawing]:
    """The hands as pictures show them, each in a colour of its own."""
    colours = itertools.cycle(HAND_COLOURS)
    parts = hands.landmarks_px, hands.verts_m, hands.faces
    return [HandDrawing(*each, next(colours)) for each in zip(*parts, strict=True)]


def annotated(photo: Photo, hands: PredictedHands) -> Photo:
    """The photo with all meshes and skeletons on it, for video."""
    seen = to_drawings(hands)
    return draw_landmarks(draw_meshes(photo, seen, hands.intrinsics, samples=1), seen)


def write_mesh(
    path: Path, verts_m: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> None:
    """A mesh file by its suffix: .obj and .ply in camera axes, .glb in glTF's, all in metres."""
    import trimesh  # Half a second that the rest need not wait for.

    if path.suffix == ".glb":
        verts_m = verts_m * GLTF_FROM_CAMERA
    trimesh.Trimesh(verts_m, faces, process=False).export(path)


def as_record(source: Input, frame: Frame, hands: PredictedHands, camera: str) -> dict[str, Any]:
    """One frame for JSON: metres in camera space, pixels of the photo."""
    height, width, _ = frame.image.shape
    return {
        "image": source.source,
        "frame": frame.index,
        "time_s": round(frame.time_s, 4),
        "width": width,
        "height": height,
        "K": np.round(hands.intrinsics, 4),
        "camera": camera,
        "hands": [
            {
                "handedness": SIDES[int(hands.is_left[i])],
                "square_px": _rounded(hands.square_px[i], DECIMALS_PX),
                "root_m": _rounded(hands.root_m[i], DECIMALS_M),
                "root_covariance_m2": hands.root_covariance_m2[i],
                "noise_px": _rounded(hands.noise_px[i], DECIMALS_PX),
                "landmarks_px": _rounded(hands.landmarks_px[i], DECIMALS_PX),
                "joints_m": _rounded(hands.joints_m[i], DECIMALS_M),
                "verts_m": _rounded(hands.verts_m[i], DECIMALS_M),
            }
            for i in range(len(hands.is_left))
        ],
    }


def _rounded(values: np.ndarray | np.floating, decimals: int) -> np.ndarray | np.floating:
    """In float32, of which JSON shows as few digits as tell it from its neighbours."""
    return np.ascontiguousarray(np.round(values, decimals), np.float32).reshape(np.shape(values))[
        ()
    ]


class Results:
    """The files of one call; everything is written as it comes.

    Args:
        out: the folder, made if it is not there.
        mesh_kinds: of MESH_KINDS; None: .obj for photos, and none for videos.
    """

    def __init__(
        self, out: Path, faces: Int[np.ndarray, "f 3"], mesh_kinds: tuple[str, ...] | None
    ):
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._mesh_kinds = mesh_kinds
        self._lines = (out / "hands.jsonl").open("wb")
        self._video: SteadyVideo | None = None
        (out / "faces.json").write_bytes(faces_as_json(faces))

    def __enter__(self) -> "Results":
        return self

    def __exit__(self, *_: object) -> None:
        self.end_input()
        self._lines.close()

    def end_input(self) -> None:
        """Completes the video of the input that was written last."""
        if self._video is not None:
            self._video.close()
            self._video = None

    def write(self, source: Input, frame: Frame, hands: PredictedHands, camera: str) -> None:
        """Writes all that is wanted of a frame."""
        record = as_record(source, frame, hands, camera)
        self._lines.write(orjson.dumps(record, option=ONE_LINE))
        self._lines.flush()
        if source.is_moving:
            if self._video is None:
                path = self._out / f"{source.name}_hands.mp4"
                self._video = SteadyVideo(path, frame)
            self._video.write(annotated(frame.image, hands), frame.time_s)
        else:
            picture = draw_prediction(frame.image, to_drawings(hands), hands.intrinsics)
            cv2.imwrite(str(self._out / f"{source.name}_overlay.jpg"), picture[..., ::-1])
        self._write_meshes(source, frame, hands)

    def _write_meshes(self, source: Input, frame: Frame, hands: PredictedHands) -> None:
        kinds = self._mesh_kinds
        if kinds is None:
            kinds = () if source.is_moving else ("obj",)
        name = f"{source.name}_{frame.index:06d}" if source.is_moving else source.name
        for i, mesh in enumerate(zip(hands.verts_m, hands.faces, strict=True)):
            hand_name = name if len(hands.is_left) == 1 else f"{name}_{i}"
            for kind in kinds:
                write_mesh(self._out / f"{hand_name}.{kind}", *mesh)


def faces_as_json(faces: Int[np.ndarray, "f 3"]) -> bytes:
    """The triangles that belong to every "verts_m"."""
    sides = {"right": faces.tolist(), "left": faces[:, ::-1].tolist()}
    return orjson.dumps(sides, option=orjson.OPT_APPEND_NEWLINE)


class SteadyVideo:
    """A video that keeps time: where frames are missing, the next one is repeated."""

    def __init__(self, path: Path, first: Frame):
        height, width, _ = first.image.shape
        self._path, self._rate_hz, self._start_s = path, first.rate_hz, first.time_s
        self._size = width, height
        codec = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(path), codec, first.rate_hz, self._size)
        if not self._writer.isOpened():
            raise OSError(
                f"{path}: this OpenCV cannot write a video of {width} x {height} px there"
            )
        self._written = 0

    def write(self, picture: Photo, time_s: float) -> None:
        """Raises ValueError if the picture is of another size than the first one."""
        height, width, _ = picture.shape
        if (width, height) != self._size:
            raise ValueError(
                f"{self._path}: a frame of {width} x {height} px after frames of "
                f"{self._size[0]} x {self._size[1]} px is left out of the video"
            )
        pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        until = max(round((time_s - self._start_s) * self._rate_hz), self._written) + 1
        for _ in range(until - self._written):
            self._writer.write(pixels)
        self._written = until

    def close(self) -> None:
        self._writer.release()
