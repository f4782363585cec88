import re

import cv2
import numpy as np
import pytest

from m3dhmr_jax.evaluate.report.cases import Case
from m3dhmr_jax.evaluate.report.entry import Entry
from m3dhmr_jax.evaluate.report.page import About, render
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics.freihand import SampleMetrics, scores
from m3dhmr_jax.visualize.data_uri import data_uri


def random_errors(seed: int) -> SampleMetrics:
    """Errors of thirty hands, about a centimetre, largest at the fingertips."""
    rng, hand = np.random.default_rng(seed), load_builtin()
    far = np.linalg.norm(hand.verts_m - hand.joint_regressor[0] @ hand.verts_m, axis=1) / 0.2
    joints = [rng.uniform(0, 0.02, (30, 21)).astype(np.float32) for _ in range(3)]
    mesh = [(rng.uniform(0, 0.02, (30, 778)) * far).astype(np.float32) for _ in range(3)]
    matched = rng.integers(300, 778, (30, 2, 2)).astype(np.int32)
    return SampleMetrics(*joints, *mesh, matched, matched)


@pytest.fixture(scope="module")
def page_html() -> str:
    entries = [Entry(scores(errors), errors) for errors in (random_errors(0), random_errors(1))]
    image = data_uri(np.full((40, 60, 3), 200, np.uint8))
    cases = {"best": [Case(3, "#3 <i>", image, 60, 40)], "median": [], "worst": []}
    about = About(
        title="A report",
        trained_on="6 <b> images",
        tested_on="others",
        facts={"step": "1,000"},
        config={"model.width": "16"},
        versions={"jax": "1.2.3"},
        focal_noise="seeded.",
    )
    perturbed_focal = {"xyz_mean3d": 0.0777}
    return render(*entries, perturbed_focal, cases, load_builtin(), about)


@pytest.fixture
def page_file(page_html, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page_html, encoding="utf-8")
    return path


def test_page_loads_nothing(page_html):
    """Except for the maps in plotly.js, which the page does not use."""
    own = re.sub(r"<script>.*?</script>", "", page_html, flags=re.DOTALL)
    assert "http" not in own
    assert len(re.findall(r'(?:src|href)="(?!data:)', own)) == 0
    assert 4e6 < len(page_html) < 8e6


def test_page_escapes_text(page_html):
    assert "6 &lt;b&gt; images" in page_html
    assert "#3 &lt;i&gt;" in page_html


def test_page_shows_scores_config_and_versions(page_html):
    assert "<td>77.70</td>" in page_html
    assert "<th>model.width</th><td>16</td>" in page_html
    assert "<th>jax</th><td>1.2.3</td>" in page_html
    assert "paper: FreiHAND" in page_html


@pytest.mark.long
def test_page_draws_all_charts(page_file, open_page):
    page = open_page(page_file, 1200, 900)
    drawn = page.locator(".chart").evaluate_all("es => es.map(e => !!e.querySelector('.main-svg'))")
    assert drawn == [True] * 6
    surface = page.locator("[data-chart=surface]")
    assert len(surface_colours(surface)) > 200


@pytest.mark.long
def test_page_rotates_hand_and_changes_its_error(page_file, open_page):
    page = open_page(page_file, 1200, 900)
    surface = page.locator("[data-chart=surface]")
    eye = "document.querySelector('[data-chart=surface]').layout.scene.camera.eye.x"
    before = page.evaluate(eye)
    surface.scroll_into_view_if_needed()
    box = surface.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 100, y, steps=10)
    page.mouse.up()
    page.wait_for_function(f"Math.abs({eye} - {before}) > 0.2")
    page.locator("input[value='camera space']").evaluate("e => e.click()")
    page.wait_for_function(
        "document.querySelector('[data-chart=surface]').data[0].cmax"
        " === charts.surface.choices['camera space'].cmax"
    )
    expected = page.evaluate("charts.surface.choices['camera space'].intensity")
    assert surface.evaluate("e => e.data[0].intensity") == expected


def surface_colours(surface) -> set[tuple[int, ...]]:
    """Distinct saturated colours in the middle of the 3D view, once it is drawn."""
    for _ in range(40):
        png = np.frombuffer(surface.screenshot(), np.uint8)
        view = cv2.imdecode(png, cv2.IMREAD_COLOR)
        height, width = view.shape[:2]
        middle = view[height // 4 : 3 * height // 4, width // 5 : 3 * width // 5]
        middle = middle.reshape(-1, 3).astype(int)
        colours = {tuple(c) for c in middle[np.ptp(middle, axis=1) > 30].tolist()}
        if len(colours) > 200:
            break
    return colours


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_page_fits_window_and_follows_color_scheme(page_file, open_page, width, scheme):
    page = open_page(page_file, width, 800, scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(number) for number in re.findall(r"\d+", background)]
    assert (max(shades) < 60) == (scheme == "dark")
