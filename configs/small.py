"""The small network for photos of any kind: rendered hands, and photos labelled by the fit.

    for seed in 0 1; do
        m3dhmr synthesize --recipe natural --out data/natural$seed --train 10000 --test 500 \\
            --seed $seed
        m3dhmr prepare data/natural$seed --out data/tfds/natural$seed
    done
    m3dhmr label digits/ --handedness right --split 0.05 --out data/digits
    m3dhmr prepare data/digits --out data/tfds/digits
    m3dhmr detector install && m3dhmr convert detector --out data/hand_blocks.safetensors
    python main.py --config=configs/small.py --workdir=runs/small --config.epochs=0.19 \\
        --config.model.frozen_blocks=14 --config.optim.learning_rate=1e-3
    python main.py --config=configs/small.py --workdir=runs/small

Its backbone starts from the landmark network of the hand detector (MediaPipe, Apache-2.0), which
has seen many real hands; the first command trains only what comes after it, the second all but its
first blocks. `digits/` holds the photos of the Sign Language Digits set (Apache-2.0) that may be
trained on.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import photos, quickstart


def get_config() -> ConfigDict:
    config: Any = quickstart.get_config()
    config.init_from = "data/hand_blocks.safetensors"
    config.epochs = 2.3
    config.batch_size = 16

    config.model.backbone = "mobilenet"
    config.model.image_size = 128
    config.model.frozen_blocks = 8
    config.model.landmark_head = "dense"

    config.data.source.folder = "data/natural0"
    config.data.source.prepared = "data/tfds/natural0"
    config.data.source.synthetic_train = 0
    config.data.source.synthetic_test = 0
    config.data.source.recipe = "natural"
    config.data.mix = (("data/tfds/natural1", 0.4), ("data/tfds/digits", 0.2))
    photos.augment_for_photos(config)
    # Prediction turns hands upright, within the error of the detector's landmarks.
    config.augment.max_angle_deg = 30.0

    config.optim.learning_rate = 3e-4
    config.optim.warmup_epochs = 0.05
    config.optim.lr_decay_epochs = (1.6, 2.1)
    config.optim.lr_decay_factor = 0.2
    config.optim.ema_decay = 0.99
    config.loss.consistency_start_epoch = 0.0
    config.checkpoint_every_epochs = 0.25
    config.eval.every_epochs = 1.0
    config.eval.save_predictions = False
    return config
