"""Any network, trained on with your labelled photos and rendered ones: minutes on a CPU.

    m3dhmr synthesize --recipe natural --out data/synthetic --train 6000 --test 500
    m3dhmr prepare data/synthetic --out data/tfds/synthetic
    python main.py --config=configs/finetune.py:runs/quickstart --workdir=runs/mine \\
        --config.data.source.folder=data/mine --config.data.source.prepared=data/tfds/mine

After the colon stands the workdir or weights file to start from; the network is as it is there.
`data.source` has your photos in FreiHAND's layout, of which evaluation scores the test split.
An epoch has as many examples as both sets together.
"""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import photos, quickstart
from m3dhmr_jax.checkpoints.run_config import load_config


def get_config(network: str = "") -> ConfigDict:
    config: Any = quickstart.get_config()
    if network:
        trained = load_config(Path(network))
        config.init_from = network
        config.hand = trained.hand
        config.model = trained.model
    config.epochs = 2.0
    config.batch_size = 32

    config.data.source.folder = "data/mine"
    config.data.source.prepared = "data/tfds/mine"
    config.data.source.synthetic_train = 0
    config.data.source.synthetic_test = 0
    config.data.mix = (("data/tfds/synthetic", 0.7),)
    photos.augment_for_photos(config)

    config.optim.learning_rate = 5e-4
    config.optim.warmup_epochs = 0.1
    config.optim.lr_decay_epochs = (1.2, 1.7)
    config.loss.consistency_start_epoch = 0.0
    config.checkpoint_every_epochs = 0.5
    config.eval.every_epochs = 1.0
    return config
