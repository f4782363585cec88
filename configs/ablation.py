"""M3DHMR with one part exchanged: tables 1 to 3 of the paper.

    python main.py --config=configs/ablation.py:decoder=dsconv,roi=false

decoder=dsc|dsconv|spiral, roi=true|false, kernels=8|2|4|16 (of dsc), backbone=resnet18|resnet34;
what is not named is as in configs/resnet18.py.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import resnet18, resnet34, variants

ALLOWED = {
    "decoder": ("dsc", "dsconv", "spiral"),
    "roi": ("true", "false"),
    "kernels": ("8", "2", "4", "16"),
    "backbone": ("resnet18", "resnet34"),
}


def get_config(variant: str = "") -> ConfigDict:
    chosen = variants.choose(variant, ALLOWED)
    base = {"resnet18": resnet18, "resnet34": resnet34}[chosen["backbone"]]
    config: Any = base.get_config()
    config.model.mesh_operator = chosen["decoder"]
    config.model.roi = chosen["roi"] == "true"
    config.model.kernels = int(chosen["kernels"])
    return config
