"""M3DHMR with one part replaced: tables 1 to 3 of the paper.

    python main.py --config=configs/ablation.py:decoder=dsconv,roi=false

decoder=dsc|dsconv|spiral, roi=true|false, kernels=8|2|4|16 (only with decoder=dsc),
backbone=resnet18|resnet34; default: as in configs/resnet18.py.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import resnet18, resnet34, variants
from m3dhmr_jax.errors import UserError

ALLOWED = {
    "decoder": ("dsc", "dsconv", "spiral"),
    "roi": ("true", "false"),
    "kernels": ("8", "2", "4", "16"),
    "backbone": ("resnet18", "resnet34"),
}


def get_config(variant: str = "") -> ConfigDict:
    chosen = variants.choose(variant, ALLOWED)
    if chosen["decoder"] != "dsc" and "kernels=" in variant:
        raise UserError(
            f"kernels={chosen['kernels']} needs decoder=dsc: decoder={chosen['decoder']} has a "
            "single kernel"
        )
    base = {"resnet18": resnet18, "resnet34": resnet34}[chosen["backbone"]]
    config: Any = base.get_config()
    config.model.mesh_operator = chosen["decoder"]
    config.model.roi = chosen["roi"] == "true"
    config.model.kernels = int(chosen["kernels"])
    return config
