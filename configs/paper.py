"""M3DHMR-ResNet18 to the letter of the paper: every loss weight 1, sums as in eq. 7, no clipping.

    python main.py --config=configs/pretrain2d.py --workdir=runs/pretrain2d \\
        --config.hand=MANO_RIGHT.pkl
    python main.py --config=configs/paper.py --config.hand=MANO_RIGHT.pkl \\
        --config.init_from=runs/pretrain2d

Adam, learning rate 0.001, divided by 10 at epoch 30 of 38, batch 32. What the paper does not
specify is as in configs/resnet18.py, which lists it.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import resnet18


def get_config() -> ConfigDict:
    config: Any = resnet18.get_config()
    config.loss.reduction = "sum"
    config.loss.weights.normal = 1.0
    config.optim.clip_norm = float("inf")
    return config
