"""M3DHMR-ResNet18 on FreiHAND: 130,240 images, 38 epochs, batch 32.

    python main.py --config=configs/resnet18.py --config.hand=MANO_RIGHT.pkl

Paper: PA-MPJPE 6.6 mm, PA-MPVPE 6.7 mm, F@5 0.734, F@15 0.978.

The paper's network and schedule, except for (configs/paper.py follows the paper in these three):

- loss.reduction: means over the elements, as in MobRecon's code; eq. 7 has sums.
- loss.weights.normal: 0.1, as in MobRecon's code; the paper has 1, with which the mesh learns far
  more slowly.
- optim.clip_norm: 2; the paper does not mention clipping. The first steps' gradients have norms
  hundreds of times larger than the rest, which would spoil Adam's second moments.

The paper does not specify, so chosen here:

- augment.*: ranges of scaling, rotation, shift and colour jitter; rotation and scaling follow
  published implementations.
- landmark_head, and that each landmark has a map of its own: as in MobRecon.
- kernels' attention: a hidden layer of half the width with ReLU, per vertex.
- roi_length, roi_dilation: the ROI layer is the output head.
- initialisation, image size (128, as in MobRecon), the unit of the mesh (0.2 m), and that per-view
  terms are averaged over the two views.
- configs/pretrain2d.py: length, weights and heads of the 2D pre-training.
"""

from typing import Any

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config: Any = ConfigDict()
    config.task = "mesh"  # Or "landmarks", as in configs/pretrain2d.py.
    config.init_from = ""  # A weights file or the workdir of a run to start from.
    config.seed = 0
    config.batch_size = 32  # Over all devices; each example gives two views.
    config.epochs = 38.0

    # The path of your MANO_RIGHT.pkl, which FreiHAND needs; default: the built-in hand.
    config.hand = ""

    # Fields of m3dhmr_jax.models.network.ModelConfig, and `hierarchy`.
    config.model = ConfigDict()
    config.model.image_size = 128
    config.model.backbone = "resnet"  # Or "densestack" (MobRecon) or "mobilenet".
    config.model.blocks = (2, 2, 2, 2)
    config.model.width = 64
    config.model.frozen_blocks = 0  # Of "mobilenet": leading blocks that training does not change.
    config.model.encoding = 256
    config.model.channels = (256, 128, 64, 32)
    config.model.mesh_operator = "dsc"  # Or "dsconv" (MobRecon) or "spiral" (SpiralConv++).
    config.model.kernels = 8
    config.model.spiral_length = 9
    config.model.roi = True  # Whether the head is the ROI layer.
    config.model.roi_length = 27
    config.model.roi_dilation = 2
    # Or "clipped_mlp" (MobRecon) or "soft_argmax", or "dense", which "mobilenet" needs.
    config.model.landmark_head = "mlp"
    # An .npz (m3dhmr_jax.mesh.hierarchy_file); default: built from the hand.
    config.model.hierarchy = ""
    config.model.compute_dtype = "float32"  # Or "bfloat16": half the memory, fast on GPU and TPU.
    config.model.remat = False  # True recomputes the residual blocks to save memory.

    # Fields of m3dhmr_jax.data.augment.AugmentConfig.
    config.augment = ConfigDict()
    config.augment.upright = False  # True: crops as prediction cuts them, in any direction.
    config.augment.scale = 1.3
    config.augment.scale_jitter = 0.2
    config.augment.max_angle_deg = 90.0
    config.augment.rotation_probability = 0.6
    config.augment.stretch = 0.0
    config.augment.shift = 1.0
    config.augment.brightness = 0.4
    config.augment.contrast = 0.4
    config.augment.saturation = 0.4
    config.augment.hue = 0.05

    # Fields of m3dhmr_jax.data.appearance.AppearanceConfig: each change's probability and its
    # largest strength, both in 0..1.
    config.appearance = ConfigDict()
    config.appearance.background = (0.0, 0.0)
    config.appearance.amplitudes = (0.0, 0.0)
    config.appearance.gamma = (0.0, 0.0)
    config.appearance.white_balance = (0.0, 0.0)
    config.appearance.grey = (0.0, 0.0)
    config.appearance.cutout = (0.0, 0.0)
    config.appearance.band = (0.0, 0.0)
    config.appearance.blur = (0.0, 0.0)
    config.appearance.sharpen = (0.0, 0.0)
    config.appearance.resample = (0.0, 0.0)
    config.appearance.noise = (0.0, 0.0)
    config.appearance.jpeg = (0.0, 0.0)

    config.data = ConfigDict()
    config.data.source = ConfigDict()
    config.data.source.folder = (
        "data/FreiHAND_pub_v2"  # The extracted archives, or data in the same layout.
    )
    config.data.source.prepared = "data/tfds/freihand"
    config.data.source.synthetic_train = 0  # If not 0, `folder` is rendered on first use.
    config.data.source.synthetic_test = 0
    config.data.source.recipe = "full"
    config.data.source.seed = 0
    # Further prepared datasets and their shares of the examples: (("data/tfds/mine", 0.3), ...).
    config.data.mix = ()
    config.data.loader = ConfigDict()
    config.data.loader.threads = 2
    config.data.loader.workers = 0
    config.data.loader.skip_unreadable = False

    config.optim = ConfigDict()
    config.optim.learning_rate = 1e-3
    config.optim.lr_decay_epochs = (30.0,)
    config.optim.lr_decay_factor = 0.1
    config.optim.warmup_epochs = 0.0
    config.optim.clip_norm = 2.0  # float("inf") never clips.
    config.optim.accumulate_steps = 1  # Microbatches per step, to save memory.
    config.optim.ema_decay = 0.0  # 0 switches the EMA of the parameters off.
    config.optim.skip_nonfinite = False  # True skips a batch with NaN or infinity.

    config.loss = ConfigDict()
    config.loss.reduction = "mean"  # Over an example's elements; "sum" is eq. 7.
    config.loss.weights = ConfigDict()
    config.loss.weights.mesh = 1.0
    config.loss.weights.pose2d = 1.0
    config.loss.weights.normal = 0.1
    config.loss.weights.edge = 1.0
    config.loss.weights.con3d = 1.0
    config.loss.weights.con2d = 1.0
    config.loss.consistency_start_epoch = 0.0  # MobRecon's code: 5.

    config.checkpoint_every_epochs = 1.0
    config.log_every_steps = 50
    config.eval = ConfigDict()
    config.eval.batch_size = 64
    config.eval.every_epochs = 1.0
    config.eval.save_predictions = False  # As eval/pred.zip, for the FreiHAND challenge.
    config.eval.checkpoint = "newest"  # Or "best" (by PA-MPVPE) or a weights file.
    return config
