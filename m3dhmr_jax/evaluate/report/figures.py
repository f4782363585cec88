"""The charts of the report as plotly's plain data.

A colour is the name of a CSS variable of page.css ("--joints"), so charts follow the light and the
dark theme. Lengths are millimetres. Axes: b samples, n joints, v vertices, p points, g bars.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from m3dhmr_jax.hand import REGIONS, HandModel
from m3dhmr_jax.metrics.freihand import PCK_THRESHOLDS_M, SampleMetrics, pck
from m3dhmr_jax.types import FloatArray

Figure = dict[str, Any]
FINGERS = REGIONS[1:]
KNUCKLES = {"thumb": ("CMC", "MCP", "IP", "tip")} | dict.fromkeys(
    FINGERS[1:], ("MCP", "PIP", "DIP", "tip")
)
BINS = 40
# The rest pose points along -x: here fingers point up and the palm to the viewer's left.
UPRIGHT = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])


def _rounded(values: np.ndarray, digits: int) -> list[Any]:
    return np.round(values.astype(np.float64), digits).tolist()


def _mean_mm(errors_m: Float[FloatArray, "b p"]) -> Float[np.ndarray, " p"]:
    """Over the samples."""
    return 1000 * np.asarray(errors_m).mean(axis=0)


def _curve(name: str, errors_m: Float[FloatArray, "b p"], line: dict[str, Any]) -> dict[str, Any]:
    fraction = pck(np.asarray(errors_m))
    span = PCK_THRESHOLDS_M[-1] - PCK_THRESHOLDS_M[0]
    area = np.trapezoid(fraction, PCK_THRESHOLDS_M) / span
    return {
        "type": "scatter",
        "mode": "lines",
        "name": f"{name} · AUC {area:.3f}",
        "x": _rounded(1000 * PCK_THRESHOLDS_M, 2),
        "y": _rounded(100 * fraction, 2),
        "line": line,
        "hovertemplate": "%{y:.1f} % within %{x:.1f} mm",
    }


def pck_figure(entries: Mapping[str, SampleMetrics], aligned: bool) -> Figure:
    """Fraction of points within a distance; the first entry in solid lines, others dotted."""
    curves = []
    for number, (entry, errors) in enumerate(entries.items()):
        joints, verts = (
            (errors.joint_errors_al_m, errors.vert_errors_al_m)
            if aligned
            else (errors.joint_errors_m, errors.vert_errors_m)
        )
        style = {"width": 1.5, "dash": "dot"} if number else {"width": 2.5}
        curves += [
            _curve(f"joints, {entry}", joints, style | {"color": "--joints"}),
            _curve(f"mesh, {entry}", verts, style | {"color": "--mesh"}),
        ]
    return {
        "data": curves,
        "layout": {
            "xaxis": {"title": {"text": "distance, mm"}, "range": [0, 50]},
            "yaxis": {"title": {"text": "points within it, %"}, "range": [0, 101]},
        },
    }


def _bars(
    positions: Sequence[float],
    names: Sequence[str],
    colours: Sequence[str],
    aligned_mm: Float[np.ndarray, " g"],
    relative_mm: Float[np.ndarray, " g"],
) -> Figure:
    """Error after alignment as opaque bars in front of the root-relative one."""
    series = (("root-relative", relative_mm, 0.35), ("aligned", aligned_mm, 1.0))
    return {
        "data": [
            {
                "type": "bar",
                "x": list(positions),
                "y": _rounded(values, 2),
                "text": list(names),
                "textposition": "none",
                "marker": {"color": list(colours), "opacity": opacity},
                "hovertemplate": f"%{{text}}: %{{y:.1f}} mm {name}<extra></extra>",
            }
            for name, values, opacity in series
        ],
        "layout": {
            "barmode": "overlay",
            "bargap": 0.2,
            "showlegend": False,
            "hovermode": "closest",
            "yaxis": {"title": {"text": "mean error, mm"}, "rangemode": "tozero"},
        },
    }


def joints_figure(errors: SampleMetrics) -> Figure:
    """Mean error of each joint, in the colours of the fingers."""
    fingers = [finger for finger in FINGERS for _ in range(4)]
    positions = [0.0] + [5.5 * i + k + 2 for i in range(len(FINGERS)) for k in range(4)]
    names = ["wrist"] + [f"{finger} {name}" for finger in FINGERS for name in KNUCKLES[finger]]
    figure = _bars(
        positions,
        names,
        ["--wrist", *(f"--{finger}" for finger in fingers)],
        _mean_mm(errors.joint_errors_al_m),
        _mean_mm(errors.joint_errors_rel_m),
    )
    below = {"yref": "paper", "y": -0.2, "yanchor": "top", "showarrow": False}
    figure["layout"] |= {
        "xaxis": {
            "tickvals": positions,
            "ticktext": [name.split()[-1] for name in names],
            "tickangle": -90,
            "tickfont": {"size": 10},
            "showgrid": False,
            "zeroline": False,
        },
        "annotations": [
            below | {"text": finger, "x": 5.5 * i + 3.5} for i, finger in enumerate(FINGERS)
        ],
        "margin": {"l": 46, "r": 8, "t": 10, "b": 66},
    }
    return figure


def regions_figure(errors: SampleMetrics, hand: HandModel) -> Figure:
    """Mean error over the vertices of each part of the hand."""
    parts = [hand.regions == number for number in range(len(REGIONS))]
    aligned, relative = (
        np.array([values[part].mean() for part in parts])
        for values in (_mean_mm(errors.vert_errors_al_m), _mean_mm(errors.vert_errors_rel_m))
    )
    colours = [f"--{'wrist' if region == 'palm' else region}" for region in REGIONS]
    positions = [float(number) for number in range(len(REGIONS))]
    figure = _bars(positions, REGIONS, colours, aligned, relative)
    figure["layout"]["xaxis"] = {
        "tickvals": positions,
        "ticktext": list(REGIONS),
        "showgrid": False,
        "zeroline": False,
    }
    return figure


def histogram_figure(entries: Mapping[str, SampleMetrics]) -> Figure:
    """Histogram of each hand's mean vertex error after alignment; the first entry filled."""
    per_hand = {
        n: 1000 * np.asarray(errors.vert_errors_al_m).mean(1) for n, errors in entries.items()
    }
    farthest = max(np.percentile(values, 99.5) for values in per_hand.values()) * 1.05
    edges = np.linspace(0, farthest, BINS + 1)
    data: list[dict[str, Any]] = []
    for number, (name, values) in enumerate(per_hand.items()):
        # The last bar includes larger errors.
        counts, _ = np.histogram(np.minimum(values, farthest), edges)
        data.append(
            {
                "type": "scatter" if number else "bar",
                "name": f"{name} · median {np.median(values):.1f} mm",
                "x": _rounded((edges[:-1] + edges[1:]) / 2, 2),
                "y": counts.tolist(),
                "hovertemplate": "%{y} hands at %{x:.1f} mm",
            }
            | (
                {"mode": "lines", "line": {"shape": "hvh", "color": "--baseline", "width": 1.5}}
                if number
                else {"marker": {"color": "--mesh"}}
            )
        )
    return {
        "data": data,
        "layout": {
            "bargap": 0.06,
            "xaxis": {"title": {"text": "mean vertex error of a hand after alignment, mm"}},
            "yaxis": {"title": {"text": "hands"}, "rangemode": "tozero"},
        },
    }


def surface_figure(errors: SampleMetrics, hand: HandModel) -> Figure:
    """The rest pose coloured by each vertex's mean error; `choices` are other such errors."""
    corners = (hand.verts_m - hand.verts_m.mean(0)) @ UPRIGHT.T
    fields = {
        "aligned": errors.vert_errors_al_m,
        "root-relative": errors.vert_errors_rel_m,
        "camera space": errors.vert_errors_m,
    }
    choices = {}
    for name, field in fields.items():
        values = _mean_mm(field)
        choices[name] = {
            "intensity": _rounded(values, 2),
            "cmin": float(values.min().round(2)),
            "cmax": float(values.max().round(2)),
        }
    axes = dict(zip("xyz", (_rounded(axis, 4) for axis in corners.T), strict=True))
    triangles = dict(zip("ijk", hand.faces.T.tolist(), strict=True))
    hidden = {"visible": False}
    return {
        "data": [
            {
                "type": "mesh3d",
                **axes,
                **triangles,
                **choices["aligned"],
                "colorscale": "Viridis",
                "text": [REGIONS[region] for region in hand.regions],
                "hovertemplate": "%{text}: %{intensity:.1f} mm<extra></extra>",
                "lighting": {"ambient": 0.62, "diffuse": 0.55, "specular": 0.12, "roughness": 0.7},
                "lightposition": {"x": -2000, "y": -4000, "z": 3000},
                "colorbar": {
                    "title": {"text": "mm", "side": "right"},
                    "thickness": 12,
                    "len": 0.8,
                    "outlinewidth": 0,
                },
            }
        ],
        "layout": {
            "scene": {
                "aspectmode": "data",
                "xaxis": hidden,
                "yaxis": hidden,
                "zaxis": hidden,
                "camera": {
                    "center": {"x": 0, "y": 0, "z": 0.07},
                    "eye": {"x": 0.55, "y": -1.85, "z": 0.4},
                },
            },
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        },
        "choices": choices,
    }
