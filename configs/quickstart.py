"""A small M3DHMR on its own synthetic dataset: minutes of training on two CPU cores.

    python main.py --config=configs/quickstart.py --mode=train_and_evaluate

configs/resnet18.py with a narrower and shallower network, smaller crops and easier images: views of
the palm or the back that tilt by up to 14 degrees, without occluders.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import resnet18


def get_config() -> ConfigDict:
    config: Any = resnet18.get_config()
    config.epochs = 5.5
    config.batch_size = 16

    config.model.image_size = 64
    config.model.blocks = (1, 1, 1, 1)
    config.model.width = 16
    config.model.encoding = 128
    config.model.channels = (32, 32, 16, 16)
    config.model.kernels = 4
    config.model.landmark_head = "soft_argmax"

    config.data.source.folder = "data/quickstart"
    config.data.source.prepared = "data/tfds/quickstart"
    config.data.source.synthetic_train = 6000
    config.data.source.synthetic_test = 500
    config.data.source.recipe = "quickstart"

    config.augment.scale_jitter = 0.1
    config.augment.max_angle_deg = 15.0
    config.augment.shift = 0.5
    config.augment.brightness = 0.15
    config.augment.contrast = 0.15
    config.augment.saturation = 0.15
    config.augment.hue = 0.02
    config.optim.learning_rate = 2.5e-3
    config.optim.warmup_epochs = 0.3
    config.optim.lr_decay_epochs = (4.0, 4.9)
    config.optim.lr_decay_factor = 0.25
    config.loss.weights.pose2d = 2.0
    config.loss.weights.con3d = 0.25
    config.loss.weights.con2d = 0.25
    config.loss.consistency_start_epoch = 2.0

    config.eval.save_predictions = True  # For `m3dhmr score`.
    config.checkpoint_every_epochs = 1.1
    config.eval.every_epochs = 2.75
    return config
