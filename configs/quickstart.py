"""A small M3DHMR on its own synthetic set: ten minutes of training on two CPU cores.

    python main.py --config=configs/quickstart.py --mode=train_and_evaluate

Same program as configs/resnet18.py; narrower, on smaller crops, of easier photos: palm or back
views that tilt by up to 14 degrees, without occluders.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import resnet18


def get_config() -> ConfigDict:
    config: Any = resnet18.get_config()
    config.epochs = 12.0
    config.batch_size = 16

    config.model.image_size = 96
    config.model.width = 16
    config.model.encoding = 64
    config.model.channels = (64, 48, 32, 16)
    config.model.kernels = 4

    config.data.source.folder = "data/quickstart"
    config.data.source.prepared = "data/tfds/quickstart"
    config.data.source.synthetic_train = 5000
    config.data.source.synthetic_test = 500
    config.data.source.recipe = "quickstart"

    config.augment.max_angle_deg = 30.0
    config.optim.learning_rate = 2e-3
    config.optim.warmup_epochs = 0.25
    config.optim.drop_epochs = (8.0, 11.0)
    config.optim.drop_factor = 0.25
    config.optim.ema_decay = 0.995
    config.loss.weights.normal = 0.1

    config.checkpoint_every_epochs = 2.0
    config.eval.every_epochs = 4.0
    return config
