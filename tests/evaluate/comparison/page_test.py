import re

import numpy as np
import pytest

from m3dhmr_jax.data import freihand
from m3dhmr_jax.evaluate.comparison.hands import ComparedHand, HandPoints
from m3dhmr_jax.evaluate.comparison.run import measure
from m3dhmr_jax.evaluate.report.comparison import (
    GAP_PX,
    PANEL_PX,
    ComparisonPage,
    draw_hand,
    render_comparison,
)
from m3dhmr_jax.hand import load_builtin
from m3dhmr_jax.predict.crops import freihand_crop


@pytest.fixture(scope="module")
def hands(labelled_set):
    """The true hands after, and others before, which are bent more and more."""
    labels, faces = freihand.read_annotations(labelled_set, "test"), load_builtin().faces
    rng, found = np.random.default_rng(0), []
    for i, k in enumerate(labels.intrinsics.astype(np.float64)):
        truth = HandPoints(labels.joints_m[i], labels.verts_m[i])
        before = HandPoints(
            *(x + rng.normal(0, 0.002 * (i + 1), x.shape).astype(x.dtype) for x in truth)
        )
        name = freihand.image_name("test", i)
        crop_px = freihand_crop(224, 224)[0]
        source = "desk.mp4" if i % 3 == 0 else "photos"
        where = labelled_set / name, name, source, k, crop_px, faces
        found.append(ComparedHand(*where, before, truth, truth))
    return found


def page_of(hands, names=("a <b>", "b")):
    compared = measure(hands)
    page = ComparisonPage(names, "mine", *compared, errors_mm=compared.errors_mm)
    return render_comparison(page)


def test_the_page_is_complete_and_escapes_names(hands):
    page = page_of(hands)
    assert "a &lt;b&gt;" in page
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "http" not in own
    differing = own.split("Where they differ most")[1].split("Worst first")[0]
    order = re.findall(r"(\d{8})\.jpg", differing)
    assert order == [f"{i:08d}" for i in (3, 2, 1, 0)]
    assert "<th>desk.mp4</th><td>2</td>" in own


def test_without_truth_there_are_no_scores(hands):
    page = page_of([hand._replace(truth=None) for hand in hands])
    assert "PA-MPJPE" not in page
    assert "look" in page
    assert page.count("data:image/jpeg") == len(hands)


def test_panels_show_image_before_after_and_label(hands):
    panels = draw_hand(hands[3])
    assert panels.shape == (PANEL_PX, 4 * PANEL_PX + 3 * GAP_PX, 3)
    image, before, after, label = (
        panels[:, i * (PANEL_PX + GAP_PX) :][:, :PANEL_PX].astype(int) for i in range(4)
    )
    drawn = (after != image).any(axis=2)
    assert 0.1 < drawn.mean() < 0.9
    # Of the same mesh in another colour; antialiased edges may round to the image's.
    assert (((label != image).any(axis=2)) != drawn).mean() < 0.01
    assert (before != after).any(axis=2).mean() > 0.05
    assert draw_hand(hands[3]._replace(truth=None)).shape[1] == 3 * PANEL_PX + 2 * GAP_PX


@pytest.mark.long
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark")])
def test_the_page_draws_its_charts_and_fits_the_window(hands, tmp_path, open_page, width, scheme):
    path = tmp_path / "report.html"
    path.write_text(page_of(hands), encoding="utf-8")
    page = open_page(path, width, 800, scheme)
    drawn = page.locator(".chart").evaluate_all("es => es.map(e => !!e.querySelector('.main-svg'))")
    assert drawn == [True] * 2
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    images = page.locator("img").evaluate_all("es => es.map(e => e.naturalWidth)")
    assert set(images) == {4 * PANEL_PX + 3 * GAP_PX}


@pytest.mark.long
def test_a_page_without_charts_opens(hands, tmp_path, open_page):
    path = tmp_path / "report.html"
    path.write_text(page_of([hand._replace(truth=None) for hand in hands]), encoding="utf-8")
    assert open_page(path, 1200, 800).locator("img").count() == len(hands)
