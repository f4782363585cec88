"""Light on what the rasteriser found: lamps with shadow, skin that glows, creases that darken.

Axes: h w samples, s shadow map, m vertices, l lamps. Colours are linear RGB. Looks travel from
vertices to samples in one row of 16 numbers, whose columns are named below.
"""

from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.synthetic.lights import Lights, Shadow
from m3dhmr_jax.synthetic.noise import noise_at, noise_tile
from m3dhmr_jax.synthetic.raster import Fragments

NORMAL, PLACE, ALBEDO = 0, 3, 6  # Three columns each; the place is counted in noise cells.
GLOSS, NAIL, GLOW, BUMP, VEIN, LINE, GRAIN = 9, 10, 11, 12, 13, 14, 15
LOOKS = 16
SHADOW_BIAS_M = np.float32(0.0035)
# Offsets within the shadow's soft edge: a ring of eight and the middle.
SOFT = np.array(
    [[0, 0]]
    + [
        [np.cos(a) * r, np.sin(a) * r]
        for a, r in zip(np.arange(8) * 2.4, np.sqrt(np.arange(1, 9) / 8), strict=True)
    ],
    np.float32,
)
AO_TAPS = 12
DITHER = 4  # Rays turn from pixel to pixel with this period, then blocks of it are averaged.
AO_RADIUS_M = 0.014
AO_RANGE_M = (0.0012, 0.05)


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _lit_share(shadow, axes, origin, per_m, blur, x, y, z):
    u = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z - origin[0]) * per_m
    v = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z - origin[1]) * per_m
    depth = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z - SHADOW_BIAS_M
    side, lit = len(shadow), 0
    for k in range(len(SOFT)):
        i, j = int(v + SOFT[k, 1] * blur), int(u + SOFT[k, 0] * blur)
        if i < 0 or j < 0 or i >= side or j >= side or shadow[i, j] > depth:
            lit += 1
    return np.float32(lit) / np.float32(len(SOFT))


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _shade(
    depth, face, weights, open_share, looks, faces, nail_rgb, nail_gloss, tile,
    focal, centre, per_px, to_lamps, lamps, above, below, shadow, axes, origin, per_m, blur, out,
):  # fmt: skip
    one, zero = np.float32(1), np.float32(0)
    row = np.empty(LOOKS, np.float32)
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            f = face[y, x]
            if f < 0:
                continue
            first_y, first_x = y - y % per_px, x - x % per_px
            if (first_y < y or first_x < x) and face[first_y, first_x] == f:
                for k in range(3):  # One colour per pixel and face; edges keep all samples.
                    out[y, x, k] = out[first_y, first_x, k]
                continue
            a, b, c = faces[f]
            wa, wb = weights[y, x, 0], weights[y, x, 1]
            wc = one - wa - wb
            for k in range(LOOKS):
                row[k] = wa * looks[a, k] + wb * looks[b, k] + wc * looks[c, k]
            px, py, pz = row[PLACE], row[PLACE + 1], row[PLACE + 2]
            nail = min(max((row[NAIL] - np.float32(0.42)) * np.float32(8), zero), one)
            red, green, blue = row[ALBEDO], row[ALBEDO + 1], row[ALBEDO + 2]
            grain = one + row[GRAIN] * noise_at(tile, px, py, pz, 0) * (one - nail)
            red, green, blue = red * grain, green * grain, blue * grain
            if row[VEIN] > 0.02:
                slow = np.float32(0.035)
                ridge = noise_at(tile, px * slow, py * slow, pz * slow * np.float32(2.2), 0)
                vein = row[VEIN] * np.exp(-ridge * ridge * np.float32(60)) * (one - nail)
                red *= one - np.float32(0.40) * vein
                green *= one - np.float32(0.16) * vein
                blue *= one - np.float32(0.08) * vein
            if row[LINE] > 0.02:
                slow = np.float32(0.045)
                ridge = noise_at(tile, pz * slow, px * slow * np.float32(0.6), py * slow, 0)
                line = row[LINE] * np.exp(-ridge * ridge * np.float32(260))
                red *= one - np.float32(0.30) * line
                green *= one - np.float32(0.45) * line
                blue *= one - np.float32(0.48) * line
            red += nail * (nail_rgb[0] - red)
            green += nail * (nail_rgb[1] - green)
            blue += nail * (nail_rgb[2] - blue)
            gloss = row[GLOSS] + nail * (nail_gloss - row[GLOSS])
            nx, ny, nz = row[NORMAL], row[NORMAL + 1], row[NORMAL + 2]
            bump = row[BUMP] * (one - nail)
            if bump > 0:
                nx += bump * noise_at(tile, px, py, pz, 1)
                ny += bump * noise_at(tile, px, py, pz, 2)
                nz += bump * noise_at(tile, px, py, pz, 3)
            scale = one / np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-20))
            nx, ny, nz = nx * scale, ny * scale, nz * scale
            z = depth[y, x]
            place_x = ((x + np.float32(0.5)) / per_px - np.float32(0.5) - centre) / focal * z
            place_y = ((y + np.float32(0.5)) / per_px - np.float32(0.5) - centre) / focal * z
            scale = -one / np.sqrt(place_x * place_x + place_y * place_y + z * z)
            vx, vy, vz = place_x * scale, place_y * scale, z * scale
            lit = _lit_share(shadow, axes, origin, per_m, blur, place_x, place_y, z)
            unhidden = open_share[y // per_px, x // per_px]
            glow = row[GLOW]
            sky = np.float32(0.5) - np.float32(0.5) * ny
            red_light = (below[0] + sky * (above[0] - below[0])) * (
                one - np.float32(0.85) * (one - unhidden)
            )
            green_light = (below[1] + sky * (above[1] - below[1])) * unhidden
            blue_light = (below[2] + sky * (above[2] - below[2])) * unhidden
            shine_r = shine_g = shine_b = zero
            sharp = np.float32(8) + np.float32(90) * gloss * gloss
            for k in range(len(to_lamps)):
                lx, ly, lz = to_lamps[k]
                facing = nx * lx + ny * ly + nz * lz
                share = lit if k == 0 else np.float32(0.55) + np.float32(0.45) * unhidden
                share *= np.float32(0.45) + np.float32(0.55) * unhidden
                # Red light travels furthest under the skin, so it wraps around furthest.
                wrap_r, wrap_g, wrap_b = glow, glow * np.float32(0.4), glow * np.float32(0.25)
                bleed = share + (one - share) * np.float32(0.4) * glow
                red_light += lamps[k, 0] * max(zero, (facing + wrap_r) / (one + wrap_r)) * bleed
                green_light += lamps[k, 1] * max(zero, (facing + wrap_g) / (one + wrap_g)) * share
                blue_light += lamps[k, 2] * max(zero, (facing + wrap_b) / (one + wrap_b)) * share
                if facing <= 0:
                    continue
                hx, hy, hz = lx + vx, ly + vy, lz + vz
                scale = one / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-9))
                mirrored = max(zero, (nx * hx + ny * hy + nz * hz) * scale)
                grazing = one - max(zero, (vx * hx + vy * hy + vz * hz) * scale)
                square = grazing * grazing
                fresnel = np.float32(0.035) + np.float32(0.965) * square * square * grazing
                peak = fresnel * (sharp + np.float32(8)) / np.float32(25) * mirrored**sharp
                peak *= facing * share * (np.float32(0.25) + np.float32(2.0) * gloss)
                shine_r += lamps[k, 0] * peak
                shine_g += lamps[k, 1] * peak
                shine_b += lamps[k, 2] * peak
            out[y, x, 0] = red_light * red + shine_r
            out[y, x, 1] = green_light * green + shine_g
            out[y, x, 2] = blue_light * blue + shine_b


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _open_share(depth, per_px, focal, strength):
    side = depth.shape[0] // per_px
    out = np.ones((side, side), np.float32)
    for y in range(side):
        for x in range(side):
            z = depth[y * per_px, x * per_px]
            if z > 1e8:
                continue
            radius = AO_RADIUS_M * focal / z * per_px
            hidden = 0.0
            for k in range(AO_TAPS):
                turn = k * 2.39996 + ((x + 2 * y) % DITHER) * 0.6
                reach = radius * np.sqrt((k + 0.7) / AO_TAPS)
                i = y * per_px + int(np.round(reach * np.sin(turn)))
                j = x * per_px + int(np.round(reach * np.cos(turn)))
                if i < 0 or j < 0 or i >= depth.shape[0] or j >= depth.shape[1]:
                    continue
                nearer = z - depth[i, j]
                if AO_RANGE_M[0] < nearer < AO_RANGE_M[1]:
                    hidden += min(1.0, nearer / 0.008) * (1 - nearer / AO_RANGE_M[1])
            out[y, x] = 1 - min(0.92, strength * hidden / AO_TAPS)
    return out


def ambient_occlusion(
    found: Fragments, per_px: int, focal_px: float, strength: float
) -> Float[np.ndarray, "h w"]:
    """Share of the surroundings that each pixel's surface sees, judged from the depth picture."""
    share = _open_share(found.depth_m, per_px, np.float32(focal_px), np.float32(strength))
    covered = (found.face[::per_px, ::per_px] >= 0).astype(np.float32)
    block = (DITHER, DITHER)
    return cv2.blur(share * covered, block) / (cv2.blur(covered, block) + np.float32(1e-6))


def shade(
    found: Fragments,
    per_px: int,
    intrinsics: Float[np.ndarray, "3 3"],
    looks: Float[np.ndarray, "m 16"],
    faces: Int[np.ndarray, "f 3"],
    nail_rgb: Float[np.ndarray, "3"],
    nail_gloss: float,
    lights: Lights,
    shadow: Shadow,
    occlusion: float,
) -> Float[np.ndarray, "h w 3"]:
    """Linear light of every covered sample; uncovered samples are black."""
    out = np.zeros((*found.depth_m.shape, 3), np.float32)
    focal = np.float32(intrinsics[0, 0])
    unhidden = ambient_occlusion(found, per_px, float(focal), occlusion)
    _shade(
        *found, unhidden, looks, faces, nail_rgb.astype(np.float32), np.float32(nail_gloss),
        noise_tile(), focal, np.float32(intrinsics[0, 2]), per_px,
        lights.directions, lights.colours, lights.from_above, lights.from_below,
        shadow.depth_m, shadow.axes, shadow.origin_m, np.float32(shadow.per_m),
        np.float32(lights.shadow_blur), out,
    )  # fmt: skip
    return out
