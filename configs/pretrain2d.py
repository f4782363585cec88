"""2D pre-training of stem, first hourglass and merge, with heatmaps and landmarks.

    python main.py --config=configs/pretrain2d.py:network=resnet18 --workdir=runs/pretrain2d
    python main.py --config=configs/resnet18.py --config.init_from=runs/pretrain2d

network=resnet18|resnet34|quickstart is the network to pre-train. The paper does not state how
long and with which weights; both are chosen here.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import quickstart, resnet18, resnet34, variants

NETWORKS: dict[str, Any] = {
    "resnet18": resnet18,
    "resnet34": resnet34,
    "quickstart": quickstart,
}
ALLOWED = {"network": tuple(NETWORKS)}


def get_config(variant: str = "") -> ConfigDict:
    network = variants.choose(variant, ALLOWED)["network"]
    config: Any = NETWORKS[network].get_config()
    config.task = "landmarks"
    config.eval.save_predictions = False  # There are no meshes to save.
    config.epochs = 0.25 * config.epochs
    config.optim.lr_decay_epochs = (0.75 * config.epochs,)

    config.loss = ConfigDict()
    config.loss.heatmap_sigma_cells = (
        1.5  # A cell is 4 px of the crop, about half the width of a finger.
    )
    config.loss.weights = ConfigDict()
    # Heatmaps are mostly empty: a blank one has an error of only 0.007.
    config.loss.weights.heatmap = 100.0
    config.loss.weights.pose2d = 1.0
    return config
