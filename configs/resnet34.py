"""M3DHMR-ResNet34 on FreiHAND: configs/resnet18.py with a deeper encoder.

    python main.py --config=configs/resnet34.py --mode=train_and_evaluate

Paper: PA-MPJPE 6.5 mm, PA-MPVPE 6.6 mm, F@5 0.739, F@15 0.980.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import resnet18


def get_config() -> ConfigDict:
    config: Any = resnet18.get_config()
    config.model.blocks = (3, 4, 6, 3)
    return config
