"""A trained network as an ONNX model: from crops of a right hand to its mesh and landmarks.

Axes: b batch, s crop side, n = 21 joints or landmarks, v vertices.
"""

import json

import numpy as np
import onnx
from flax import nnx

from m3dhmr_jax.checkpoints.manager import digest
from m3dhmr_jax.export.onnx_graph import Graph, ImageInput
from m3dhmr_jax.export.onnx_layers import write, write_landmark_head, write_sample_at
from m3dhmr_jax.hand import HandModel, hand_id
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.types import BOX_SCALE, MESH_UNIT_M, N_JOINTS

CROPS = "crops"
FRAME = (
    "camera axes of the crop (x right, y down, z forward), origin near the wrist; a hand whose "
    "crop was turned upright is turned back by that angle about z"
)
CROP = (
    f"RGB, uint8, of a right hand (mirror the image of a left one): the square of {BOX_SCALE} "
    "times the longer side of the hand's box (x, y, width, height), around the box's centre "
    "(x + width / 2, y + height / 2), fingers up, scaled to image_size with bilinear "
    "interpolation, black outside the image; pixels have their centres on integers, so "
    "crop = (image - square's corner) * image_size / square's side"
)
JOINTS = "wrist; thumb, index, middle, ring, little, each from palm to tip (FreiHAND)"


def network_model(
    network: Network, hand: HandModel, *, config_json: str | None = None, half: bool = False
) -> onnx.ModelProto:
    """The network in float32, whatever its compute dtype.

    Input: `crops`, uint8, (batch, s, s, 3), cut as CROP says.

    Outputs, float32:
        vertices_m (batch, v, 3), joints_m (batch, 21, 3): metres, in the axes of FRAME.
        landmarks_px (batch, 21, 2): (x, y) in pixels of the crop.

    Metadata: `weights_sha256`, which is that of the predictor with these weights; `hand`, `faces`
    (JSON), `image_size`, `unit`, `frame`, `crop`, `joints`; `config`, if given.

    Args:
        half: store large constants as float16.

    Raises:
        NotImplementedError: if the network has a layer without an ONNX form.
    """
    model = nnx.merge(network.eval_graphdef, network.params, network.stats)
    graph, side = Graph(half=half), network.image_size
    image = graph("Sub", graph("Mul", graph.image(CROPS), np.float32(2 / 255)), np.float32(1))
    encoding, maps = write(model.backbone, graph, image)
    map_side = side // model.backbone.MAP_STRIDE
    landmarks_01 = write_landmark_head(model.landmark_head, graph, maps, map_side)
    pose_features = write_sample_at(graph, encoding, landmarks_01, side // 32)
    verts_m = graph("Mul", write(model.decoder, graph, pose_features), np.float32(MESH_UNIT_M))
    joints_m = graph("MatMul", np.asarray(hand.joint_regressor, np.float32), verts_m)
    metadata = {
        "weights_sha256": digest({"params": network.params, "stats": network.stats}),
        "hand": hand_id(hand),
        "faces": json.dumps(hand.faces.tolist(), separators=(",", ":")),
        "image_size": str(side),
        "unit": "metre",
        "frame": FRAME,
        "crop": CROP,
        "joints": JOINTS,
    }
    if config_json is not None:
        metadata["config"] = config_json
    return graph.model(
        "m3dhmr",
        ImageInput(CROPS, side),
        {
            "vertices_m": (verts_m, (len(hand.verts_m), 3)),
            "joints_m": (joints_m, (N_JOINTS, 3)),
            "landmarks_px": (graph("Mul", landmarks_01, np.float32(side)), (N_JOINTS, 2)),
        },
        metadata,
    )
