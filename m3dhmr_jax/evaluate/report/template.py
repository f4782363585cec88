"""Fills the templates of the pages, each one HTML file that needs no network."""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import plotly.offline

from m3dhmr_jax.evaluate.report.figures import Figure

_FILES = resources.files("m3dhmr_jax.evaluate.report")


def render_template(name: str, title: str, charts: Mapping[str, Figure], **content: Any) -> str:
    """The page of a template that extends layout.html; with charts it also holds plotly.js."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(
        title=title,
        style=_read("page.css"),
        script=_read("page.js"),
        plotly=plotly.offline.get_plotlyjs() if charts else "",
        charts=json.dumps(charts, separators=(",", ":"), allow_nan=False).replace("</", "<\\/"),
        **content,
    )


def _read(name: str) -> str:
    return (_FILES / name).read_text("utf-8")
