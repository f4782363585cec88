"""MobRecon on FreiHAND: a depth-separable decoder without ROI layer, consistency from epoch 5.

    python main.py --config=configs/mobrecon.py:backbone=densestack

backbone=densestack|resnet18|resnet34. Paper, DenseStack: PA-MPJPE 6.9 mm, PA-MPVPE 7.2 mm,
F@5 0.694, F@15 0.979; ResNet18: 6.7, 6.8, 0.727, 0.979; ResNet34: 6.6, 6.7, 0.730, 0.979.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import resnet18, resnet34, variants

ALLOWED = {"backbone": ("densestack", "resnet18", "resnet34")}


def get_config(variant: str = "") -> ConfigDict:
    backbone = variants.choose(variant, ALLOWED)["backbone"]
    config: Any = (resnet34 if backbone == "resnet34" else resnet18).get_config()
    if backbone == "densestack":
        config.model.backbone = "densestack"
        config.model.landmark_head = "clipped_mlp"
    config.model.mesh_operator = "dsconv"
    config.model.roi = False
    config.loss.consistency_start_epoch = 5.0
    return config
