"""Decoders that the paper does not have: each changes one thing of the paper's.

Axes: b batch, n landmarks, v vertices, m vertices of the coarsest mesh, h heads, e encoding
channels, t tokens, c d channels.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from benchmarks.decoders.features import Features
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.models.decoder import MeshDecoder
from m3dhmr_jax.models.layers import sample_at

ATTENTION_HEADS = 4
SIMPLEHAND_TOKENS = (84, 336)
RESIDUAL_CHANNELS = 32


class SampledDecoder(nnx.Module):
    """A decoder of what is sampled at the landmarks: of F^e (eq. 1), and of the finest map too."""

    def __init__(self, decoder: Any, finest: bool = False):
        self.decoder = decoder
        self.finest = finest

    def pose_features(self, features: Features) -> Float[Array, "b n e"]:
        maps = (features.encoding, features.finest) if self.finest else (features.encoding,)
        return jnp.concatenate([sample_at(each, features.landmarks_01) for each in maps], axis=-1)

    def __call__(self, features: Features) -> Float[Array, "b v 3"]:
        return self.decoder(self.pose_features(features))


def locate(
    verts: Float[Array, "b v 3"],
    landmarks_01: Float[Array, "b n 2"],
    joint_regressor: Float[np.ndarray, "n v"],
) -> Float[Array, "b v 2"]:
    """Where vertices are in the crop, as a fraction of its side.

    By the scale and the shift that bring the mesh's joints nearest to the landmarks: the camera of
    a crop is not known, and a hand is small compared with its distance.
    """
    joints = jnp.einsum("nv,bvc->bnc", joint_regressor, verts[..., :2], precision="highest")
    mean_joint, mean_landmark = (x.mean(axis=1, keepdims=True) for x in (joints, landmarks_01))
    joints, offsets = joints - mean_joint, landmarks_01 - mean_landmark
    extent = jnp.sum(joints**2, axis=(1, 2), keepdims=True)
    scale = jnp.sum(joints * offsets, axis=(1, 2), keepdims=True) / jnp.maximum(extent, 1e-6)
    return scale * (verts[..., :2] - mean_joint) + mean_landmark


class RefinedDecoder(nnx.Module):
    """Vertices are looked up in the finest map where the first mesh has them, and moved once.

    After WiLoR's refinement. No gradient passes through the locations. Starts as the plain decoder.
    """

    def __init__(self, decoder: MeshDecoder, c: int, finest: int, hand: HandModel, rngs: nnx.Rngs):
        self.sampled = SampledDecoder(decoder)
        self.hand = hand
        self.hidden = nnx.Linear(c + finest + 3, RESIDUAL_CHANNELS, rngs=rngs)
        zeros = nnx.initializers.zeros
        self.residual = nnx.Linear(RESIDUAL_CHANNELS, 3, kernel_init=zeros, rngs=rngs)

    def __call__(self, features: Features) -> Float[Array, "b v 3"]:
        decoder = self.sampled.decoder
        x = decoder.vertex_features(self.sampled.pose_features(features))
        verts = decoder.head(x, decoder.head_spirals.indices)
        where_01 = locate(verts, features.landmarks_01, self.hand.joint_regressor)
        found = sample_at(features.finest, jax.lax.stop_gradient(where_01))
        hidden = nnx.relu(self.hidden(jnp.concatenate([x, found, verts], axis=-1)))
        return verts + self.residual(hidden)


class AttentionDecoder(MeshDecoder):
    """The lift is an attention of the coarsest vertices over the landmarks' features.

    A vertex's weights depend on the image; the learned bias stands for the lifting matrix.
    """

    def __init__(self, landmarks: int, encoding: int, *args: Any, rngs: nnx.Rngs, **kwargs: Any):
        super().__init__(landmarks, encoding, *args, rngs=rngs, **kwargs)
        coarsest = self.hierarchy.coarsest
        del self.lifting_matrix
        width = encoding // ATTENTION_HEADS
        normal = nnx.initializers.normal(1.0)
        self.bias = nnx.Param(jnp.zeros((ATTENTION_HEADS, coarsest, landmarks)))
        self.queries = nnx.Param(normal(rngs.params(), (coarsest, ATTENTION_HEADS, width)))
        self.keys = nnx.LinearGeneral(encoding, (ATTENTION_HEADS, width), rngs=rngs)
        self.values = nnx.LinearGeneral(encoding, (ATTENTION_HEADS, width), rngs=rngs)

    def lift(self, pose_features: Float[Array, "b n e"]) -> Float[Array, "b m e"]:
        keys, values = self.keys(pose_features), self.values(pose_features)
        logits = jnp.einsum("mhc,bnhc->bhmn", self.queries[...], keys) / keys.shape[-1] ** 0.5
        weights = nnx.softmax(logits + self.bias[...][None], axis=-1)
        lifted = jnp.einsum("bhmn,bnhc->bmhc", weights, values)
        return lifted.reshape(*lifted.shape[:2], -1)


class TokenBlock(nnx.Module):
    """Attention among tokens, then a layer per token, each around a shortcut."""

    def __init__(self, c: int, rngs: nnx.Rngs):
        self.norm1, self.norm2 = nnx.LayerNorm(c, rngs=rngs), nnx.LayerNorm(c, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            ATTENTION_HEADS, c, decode=False, keep_rngs=False, rngs=rngs
        )
        self.expand = nnx.Linear(c, 2 * c, rngs=rngs)
        self.contract = nnx.Linear(2 * c, c, rngs=rngs)

    def __call__(self, x: Float[Array, "b t c"]) -> Float[Array, "b t c"]:
        x = x + self.attention(self.norm1(x))
        return x + self.contract(nnx.gelu(self.expand(self.norm2(x))))


class TokenDecoder(nnx.Module):
    """simpleHand's lift 21 -> 84 -> 336 -> 778: tokens, mixed by attention, no mesh operators."""

    def __init__(
        self,
        landmarks: int,
        encoding: int,
        channels: tuple[int, ...],
        vertices: int,
        rngs: nnx.Rngs,
    ):
        counts, widths = (landmarks, *SIMPLEHAND_TOKENS, vertices), (encoding, *channels[:3])
        init = nnx.initializers.lecun_normal(in_axis=1, out_axis=0)
        self.lifts = nnx.List(
            nnx.Param(init(rngs.params(), (finer, coarser)))
            for coarser, finer in itertools.pairwise(counts)
        )
        self.narrow = nnx.List(nnx.Linear(c, d, rngs=rngs) for c, d in itertools.pairwise(widths))
        self.blocks = nnx.List(TokenBlock(d, rngs) for d in widths[1:3])
        self.head = nnx.Linear(widths[-1], 3, rngs=rngs)

    def __call__(self, pose_features: Float[Array, "b n e"]) -> Float[Array, "b v 3"]:
        x = pose_features
        for number, (lift, narrow) in enumerate(zip(self.lifts, self.narrow, strict=True)):
            x = jnp.einsum("ut,btc->buc", lift[...], narrow(x))
            x = self.blocks[number](x) if number < len(self.blocks) else nnx.relu(x)
        return self.head(x)
