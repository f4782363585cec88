"""Pages on which a person looks at the labels of a set, worst first, and rejects wrong ones.

Each page is one HTML file that needs no network, of at most about 7 MB.
Axes: h w image, a b drawing.
"""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
from jaxtyping import Float, UInt8

from m3dhmr_jax.data import freihand
from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import HandModel, hand_id
from m3dhmr_jax.labelling.labelled_set import read_labels, set_id
from m3dhmr_jax.predict.images import read_image
from m3dhmr_jax.runtime.files import write_atomic
from m3dhmr_jax.synthetic.camera import project
from m3dhmr_jax.types import FREIHAND_IMAGE_PX
from m3dhmr_jax.visualize.data_uri import data_uri
from m3dhmr_jax.visualize.hands import HandDrawing
from m3dhmr_jax.visualize.overlay import draw_landmarks, draw_meshes, scale_drawing

HANDS_PER_PAGE = 200
SHOWN_PX = 144  # Of the 224 px of an image: the hand and a margin.
ENLARGED = 2  # The drawing, so that lines are thin.


class Card(NamedTuple):
    """One hand on a page."""

    name: str
    caption: str
    title: str
    # A data URI: the image, and the same with mesh and skeleton.
    jpeg: str


def write_review(folder: Path, hand: HandModel) -> list[Path]:
    """Writes `review_1.html`, ... into the folder of a finished set; returns their paths.

    Raises:
        UserError: if it is not a finished set, or was labelled with another hand model.
    """
    labels = read_labels(folder)
    if labels["settings"]["hand"] != hand_id(hand):
        raise UserError(f"{folder} was labelled with another hand model: give it with --hand")
    hands = sorted(labels["hands"], key=lambda each: each["quality"])
    labels_of = {
        part: freihand.read_annotations(folder, split) for split, part in freihand.FOLDERS.items()
    }
    template = _template()
    paths = []
    for start in range(0, len(hands), HANDS_PER_PAGE):
        page = hands[start : start + HANDS_PER_PAGE]
        number, total = start // HANDS_PER_PAGE + 1, -(-len(hands) // HANDS_PER_PAGE)
        text = template.render(
            cards=[_card(folder, each, labels_of[each["split"]], hand) for each in page],
            first=start + 1,
            hands=len(hands),
            number=number,
            total=total,
            folder=folder.name,
            set=set_id(folder),
        )
        paths.append(folder / f"review_{number}.html")
        with write_atomic(paths[-1]) as partial:
            partial.write_text(text, encoding="utf-8")
    return paths


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = resources.files("m3dhmr_jax.labelling") / "review.html"
    return environment.from_string(page.read_text("utf-8"))


def _card(
    folder: Path, label: Mapping[str, Any], labels: freihand.Annotations, hand: HandModel
) -> Card:
    row = int(Path(label["image"]).stem)
    k, verts_m, joints_m = (
        np.asarray(x[row], np.float64) for x in (labels.intrinsics, labels.verts_m, labels.joints_m)
    )
    image = read_image(folder / label["image"]).image
    drawing = HandDrawing(project(joints_m, k), verts_m, hand.faces)
    source = f"{label['source']} · frame {label['frame']}" if label["frame"] else label["source"]
    return Card(
        label["image"],
        f"{label['quality']:.2f} · {label['handedness']}",
        f"{source} · views disagree by {label['disagreement']:.1%}, "
        f"fit misses by {label['residual']:.1%} of the hand · {label['size_px']:.0f} px",
        data_uri(_draw(image, drawing, k)),
    )


def _draw(
    image: UInt8[np.ndarray, "h w 3"], hand: HandDrawing, intrinsics: Float[np.ndarray, "3 3"]
) -> UInt8[np.ndarray, "a b 3"]:
    """The centre of the image, and beside it the same with mesh and skeleton."""
    image, hands, intrinsics = scale_drawing(image, [hand], intrinsics, float(ENLARGED))
    drawn = draw_landmarks(draw_meshes(image, hands, intrinsics), hands)
    margin = ENLARGED * (FREIHAND_IMAGE_PX - SHOWN_PX) // 2
    inside = slice(margin, -margin)
    return np.concatenate([image[inside, inside], drawn[inside, inside]], axis=1)
