"""Shading of fragments: lights, one shadow, subsurface scattering, ambient occlusion.

Vertices carry 16 material attributes, whose columns are named below; samples interpolate them.

Axes: h w samples, m vertices, f faces, 16 attributes. Colours are linear RGB.
"""

from typing import no_type_check

import cv2
import numba
import numpy as np
from jaxtyping import Float, Int

from m3dhmr_jax.synthetic.lights import Lights, Shadow
from m3dhmr_jax.synthetic.noise import noise_at, noise_tile
from m3dhmr_jax.visualize.raster import Fragments

# Three columns each; positions are counted in cells of the noise.
NORMAL, NOISE_POSITION, ALBEDO = 0, 3, 6
GLOSS, NAIL, SUBSURFACE, BUMP, VEIN, PALM_LINE, GRAIN = 9, 10, 11, 12, 13, 14, 15
N_ATTRIBUTES = 16
SHADOW_BIAS_M = np.float32(0.0035)
# Percentage-closer filtering: the centre and a spiral of eight samples in the unit disc.
SHADOW_OFFSETS = np.array(
    [[0, 0]]
    + [
        [np.cos(a) * r, np.sin(a) * r]
        for a, r in zip(np.arange(8) * 2.4, np.sqrt(np.arange(1, 9) / 8), strict=True)
    ],
    np.float32,
)
AO_TAPS = 12
# The sampling pattern rotates from pixel to pixel with this period and is then blurred over it.
DITHER_PX = 4
AO_RADIUS_M = 0.014
AO_RANGE_M = (0.0012, 0.05)


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _light_visibility(shadow, axes, origin, samples_per_m, blur, x, y, z):
    u = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z - origin[0]) * samples_per_m
    v = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z - origin[1]) * samples_per_m
    depth = axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z - SHADOW_BIAS_M
    side, visibility = len(shadow), 0
    for k in range(len(SHADOW_OFFSETS)):
        i, j = int(v + SHADOW_OFFSETS[k, 1] * blur), int(u + SHADOW_OFFSETS[k, 0] * blur)
        if i < 0 or j < 0 or i >= side or j >= side or shadow[i, j] > depth:
            visibility += 1
    return np.float32(visibility) / np.float32(len(SHADOW_OFFSETS))


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _shade(
    depth, face, weights, ambient_map, materials, faces, nail_rgb, nail_gloss, tile,
    focal, centre_x, centre_y, samples_per_px, light_directions, light_colours, above, below,
    shadow, axes, origin, samples_per_m, blur, out,
):  # fmt: skip
    one, zero = np.float32(1), np.float32(0)
    row = np.empty(N_ATTRIBUTES, np.float32)
    for y in range(depth.shape[0]):
        for x in range(depth.shape[1]):
            f = face[y, x]
            if f < 0:
                continue
            first_y, first_x = y - y % samples_per_px, x - x % samples_per_px
            if (first_y < y or first_x < x) and face[first_y, first_x] == f:
                for k in range(3):  # One colour per pixel and face; edges keep all samples.
                    out[y, x, k] = out[first_y, first_x, k]
                continue
            a, b, c = faces[f]
            wa, wb = weights[y, x, 0], weights[y, x, 1]
            wc = one - wa - wb
            for k in range(N_ATTRIBUTES):
                row[k] = wa * materials[a, k] + wb * materials[b, k] + wc * materials[c, k]
            px, py, pz = row[NOISE_POSITION], row[NOISE_POSITION + 1], row[NOISE_POSITION + 2]
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
            if row[PALM_LINE] > 0.02:
                slow = np.float32(0.045)
                ridge = noise_at(tile, pz * slow, px * slow * np.float32(0.6), py * slow, 0)
                line = row[PALM_LINE] * np.exp(-ridge * ridge * np.float32(260))
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
            x_m = ((x + np.float32(0.5)) / samples_per_px - np.float32(0.5) - centre_x) / focal * z
            y_m = ((y + np.float32(0.5)) / samples_per_px - np.float32(0.5) - centre_y) / focal * z
            scale = -one / np.sqrt(x_m * x_m + y_m * y_m + z * z)
            vx, vy, vz = x_m * scale, y_m * scale, z * scale
            visibility = _light_visibility(shadow, axes, origin, samples_per_m, blur, x_m, y_m, z)
            ambient = ambient_map[y // samples_per_px, x // samples_per_px]
            glow = row[SUBSURFACE]
            sky = np.float32(0.5) - np.float32(0.5) * ny
            red_light = (below[0] + sky * (above[0] - below[0])) * (
                one - np.float32(0.85) * (one - ambient)
            )
            green_light = (below[1] + sky * (above[1] - below[1])) * ambient
            blue_light = (below[2] + sky * (above[2] - below[2])) * ambient
            shine_r = shine_g = shine_b = zero
            sharp = np.float32(8) + np.float32(90) * gloss * gloss
            for k in range(len(light_directions)):
                lx, ly, lz = light_directions[k]
                facing = nx * lx + ny * ly + nz * lz
                visible = visibility if k == 0 else np.float32(0.55) + np.float32(0.45) * ambient
                visible *= np.float32(0.45) + np.float32(0.55) * ambient
                # Red light scatters furthest under the skin, so it wraps around furthest.
                wrap_r, wrap_g, wrap_b = glow, glow * np.float32(0.4), glow * np.float32(0.25)
                bleed = visible + (one - visible) * np.float32(0.4) * glow
                wrapped_r = max(zero, (facing + wrap_r) / (one + wrap_r))
                red_light += light_colours[k, 0] * wrapped_r * bleed
                wrapped_g = max(zero, (facing + wrap_g) / (one + wrap_g))
                green_light += light_colours[k, 1] * wrapped_g * visible
                wrapped_b = max(zero, (facing + wrap_b) / (one + wrap_b))
                blue_light += light_colours[k, 2] * wrapped_b * visible
                if facing <= 0:
                    continue
                hx, hy, hz = lx + vx, ly + vy, lz + vz
                scale = one / np.sqrt(hx * hx + hy * hy + hz * hz + np.float32(1e-9))
                mirrored = max(zero, (nx * hx + ny * hy + nz * hz) * scale)
                grazing = one - max(zero, (vx * hx + vy * hy + vz * hz) * scale)
                square = grazing * grazing
                fresnel = np.float32(0.035) + np.float32(0.965) * square * square * grazing
                peak = fresnel * (sharp + np.float32(8)) / np.float32(25) * mirrored**sharp
                peak *= facing * visible * (np.float32(0.25) + np.float32(2.0) * gloss)
                shine_r += light_colours[k, 0] * peak
                shine_g += light_colours[k, 1] * peak
                shine_b += light_colours[k, 2] * peak
            out[y, x, 0] = red_light * red + shine_r
            out[y, x, 1] = green_light * green + shine_g
            out[y, x, 2] = blue_light * blue + shine_b


@numba.njit(cache=True, fastmath=True)
@no_type_check
def _ambient_visibility(depth, samples_per_px, focal, strength):
    height, width = depth.shape[0] // samples_per_px, depth.shape[1] // samples_per_px
    out = np.ones((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            z = depth[y * samples_per_px, x * samples_per_px]
            if z > 1e8:
                continue
            radius = AO_RADIUS_M * focal / z * samples_per_px
            hidden = 0.0
            for k in range(AO_TAPS):
                angle = k * 2.39996 + ((x + 2 * y) % DITHER_PX) * 0.6
                distance = radius * np.sqrt((k + 0.7) / AO_TAPS)
                i = y * samples_per_px + int(np.round(distance * np.sin(angle)))
                j = x * samples_per_px + int(np.round(distance * np.cos(angle)))
                if i < 0 or j < 0 or i >= depth.shape[0] or j >= depth.shape[1]:
                    continue
                nearer = z - depth[i, j]
                if AO_RANGE_M[0] < nearer < AO_RANGE_M[1]:
                    hidden += min(1.0, nearer / 0.008) * (1 - nearer / AO_RANGE_M[1])
            out[y, x] = 1 - min(0.92, strength * hidden / AO_TAPS)
    return out


def ambient_visibility_map(
    fragments: Fragments, samples_per_px: int, focal_px: float, strength: float
) -> Float[np.ndarray, "h w"]:
    """Unoccluded fraction of the surroundings of each pixel's surface, from the depth image."""
    visible = _ambient_visibility(
        fragments.depth_m, samples_per_px, np.float32(focal_px), np.float32(strength)
    )
    covered = (fragments.face[::samples_per_px, ::samples_per_px] >= 0).astype(np.float32)
    block = (DITHER_PX, DITHER_PX)
    return cv2.blur(visible * covered, block) / (cv2.blur(covered, block) + np.float32(1e-6))


def shade(
    fragments: Fragments,
    samples_per_px: int,
    intrinsics: Float[np.ndarray, "3 3"],
    materials: Float[np.ndarray, "m 16"],
    faces: Int[np.ndarray, "f 3"],
    nail_rgb: Float[np.ndarray, "3"],
    nail_gloss: float,
    lights: Lights,
    shadow: Shadow,
    ao_strength: float,
) -> Float[np.ndarray, "h w 3"]:
    """Linear radiance of every covered sample; uncovered samples are black.

    `materials`: from `render.sample_materials`; `ao_strength` scales ambient occlusion.
    """
    out = np.zeros((*fragments.depth_m.shape, 3), np.float32)
    focal, centre_x, centre_y = (np.float32(intrinsics[i, j]) for i, j in ((0, 0), (0, 2), (1, 2)))
    ambient_map = ambient_visibility_map(fragments, samples_per_px, float(focal), ao_strength)
    _shade(
        *fragments, ambient_map, materials, faces, nail_rgb.astype(np.float32),
        np.float32(nail_gloss), noise_tile(), focal, centre_x, centre_y, samples_per_px,
        lights.directions, lights.colours, lights.from_above, lights.from_below,
        shadow.depth_m, shadow.axes, shadow.origin_m, np.float32(shadow.samples_per_m),
        np.float32(lights.shadow_blur), out,
    )  # fmt: skip
    return out
