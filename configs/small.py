"""The small network for photos of any kind: rendered hands, and photos labelled by the fit.

    for seed in 0 1 2 3; do
        m3dhmr synthesize --recipe natural --out data/natural$seed --train 10000 --test 500 \\
            --seed $seed
        m3dhmr prepare data/natural$seed --out data/tfds/natural$seed
    done
    m3dhmr label digits/ --handedness right --split 0.05 --out data/digits
    m3dhmr prepare data/digits --out data/tfds/digits
    python main.py --config=configs/pretrain2d.py:network=small --workdir=runs/small2d \\
        --config.epochs=60 --config.optim.lr_decay_epochs='(45.0, 56.0)'
    python main.py --config=configs/small.py --config.init_from=runs/small2d --workdir=runs/small

Landmarks come first: a step of the 2D pre-training takes a sixth of the time of one with the mesh.
`digits/` holds the photos of the Sign Language Digits set (Apache-2.0) that may be trained on.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import photos, quickstart


def get_config() -> ConfigDict:
    config: Any = quickstart.get_config()
    config.epochs = 12.0
    config.batch_size = 32
    config.model.width = 24

    config.data.source.folder = "data/natural0"
    config.data.source.prepared = "data/tfds/natural0"
    config.data.source.synthetic_train = 0
    config.data.source.synthetic_test = 0
    config.data.source.recipe = "natural"
    rendered = tuple((f"data/tfds/natural{seed}", 0.2) for seed in (1, 2, 3))
    config.data.mix = (*rendered, ("data/tfds/digits", 0.2))
    photos.augment_for_photos(config)
    # Prediction turns hands upright, within the error of the detector's landmarks.
    config.augment.max_angle_deg = 30.0

    config.optim.learning_rate = 2e-3
    config.optim.warmup_epochs = 0.2
    config.optim.lr_decay_epochs = (7.0, 10.0)
    config.optim.lr_decay_factor = 0.2
    config.optim.ema_decay = 0.999
    config.loss.consistency_start_epoch = 0.0
    config.checkpoint_every_epochs = 0.25
    config.eval.every_epochs = 1.0
    config.eval.save_predictions = False
    return config
