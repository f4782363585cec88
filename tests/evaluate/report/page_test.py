import re

import cv2
import numpy as np
import pytest

from m3dhmr_jax.evaluate.report.cases import Case, data_uri
from m3dhmr_jax.evaluate.report.page import About, Entry, render
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.metrics.freihand import SampleMetrics, scores


def random_errors(seed: int) -> SampleMetrics:
    """Thirty hands, a centimetre off; the tips of the fingers, far from the wrist, most."""
    rng, hand = np.random.default_rng(seed), load_builtin()
    far = np.linalg.norm(hand.verts_m - hand.joint_regressor[0] @ hand.verts_m, axis=1) / 0.2
    joints = [rng.uniform(0, 0.02, (30, 21)).astype(np.float32) for _ in range(3)]
    mesh = [(rng.uniform(0, 0.02, (30, 778)) * far).astype(np.float32) for _ in range(3)]
    matched = rng.integers(300, 778, (30, 2, 2)).astype(np.int32)
    return SampleMetrics(*joints, *mesh, matched, matched)


@pytest.fixture(scope="module")
def page() -> str:
    entries = [Entry(scores(errors), errors) for errors in (random_errors(0), random_errors(1))]
    picture = data_uri(np.full((40, 60, 3), 200, np.uint8))
    cases = {"best": [Case(3, "#3 <i>", picture, 60, 40)], "median": [], "worst": []}
    about = About(
        title="A report",
        trained_on="6 <b> photos",
        tested_on="others",
        facts={"step": "1,000"},
        config={"model.width": "16"},
        versions={"jax": "1.2.3"},
        focal_noise="seeded.",
    )
    noisy = {"xyz_mean3d": 0.0777}
    return render(*entries, noisy, cases, load_builtin(), about)


def test_the_page_needs_nothing_from_elsewhere(page):
    """But for what plotly.js holds for maps, which no chart here is."""
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in own
    assert len(re.findall(r'(?:src|href)="(?!data:)', own)) == 0
    assert 4e6 < len(page) < 8e6


def test_words_are_text_and_not_markup(page):
    assert "6 &lt;b&gt; photos" in page
    assert "#3 &lt;i&gt;" in page


def test_scores_config_and_versions_are_on_the_page(page):
    assert "<td>77.7</td>" in page
    assert "<th>model.width</th><td>16</td>" in page
    assert "<th>jax</th><td>1.2.3</td>" in page
    assert "paper: FreiHAND" in page


def test_in_a_browser_all_charts_draw_without_a_complaint(page, browser, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    browser.show(1200, 900)
    browser.open(path)
    browser.wait_for("document.body?.classList.contains('drawn') ?? false")
    svgs = "[...document.querySelectorAll('.chart')].map((e) => !!e.querySelector('.main-svg'))"
    assert browser.evaluate(svgs) == [True] * 6
    assert len(colours_of(browser)) > 200  # The hand's surface.
    eye = "document.querySelector('[data-chart=surface]').layout.scene.camera.eye.x"
    before = browser.evaluate(eye)
    browser.drag("[data-chart=surface]", across_px=100)
    browser.wait_for(f"Math.abs({eye} - {before}) > 0.2")
    browser.evaluate("document.querySelector('input[value=\"camera space\"]').click()")
    browser.wait_for(
        "document.querySelector('[data-chart=surface]').data[0].cmax"
        " === charts.surface.choices['camera space'].cmax"
    )
    shown = "document.querySelector('[data-chart=surface]').data[0].intensity"
    assert browser.evaluate(shown) == browser.evaluate(
        "charts.surface.choices['camera space'].intensity"
    )
    assert browser.complaints == []


def colours_of(browser) -> set[tuple[int, ...]]:
    """Different saturated colours of the middle of the 3D view, once it has any."""
    for _ in range(40):
        png = np.frombuffer(browser.screenshot("[data-chart=surface]"), np.uint8)
        view = cv2.imdecode(png, cv2.IMREAD_COLOR)
        height, width = view.shape[:2]
        middle = view[height // 4 : 3 * height // 4, width // 5 : 3 * width // 5]
        middle = middle.reshape(-1, 3).astype(int)
        colours = {tuple(c) for c in middle[np.ptp(middle, axis=1) > 30].tolist()}
        if len(colours) > 200:
            break
    return colours


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)])
def test_the_page_fits_its_window_by_day_and_night(page, browser, tmp_path, width, dark):
    path = tmp_path / "report.html"
    path.write_text(page, encoding="utf-8")
    browser.show(width, 800, dark)
    browser.open(path)
    browser.wait_for("document.body?.classList.contains('drawn') ?? false")
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    background = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    shades = [int(number) for number in re.findall(r"\d+", background)]
    assert (max(shades) < 60) == dark
    assert browser.complaints == []
