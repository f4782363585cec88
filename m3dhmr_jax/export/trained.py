"""What is exported: a trained network with all that is known about it."""

from pathlib import Path
from typing import NamedTuple

from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.checkpoints.restore import NEWEST, restore_eval_state
from m3dhmr_jax.checkpoints.run_config import config_text, load_config
from m3dhmr_jax.hand import HandModel
from m3dhmr_jax.models.functional import Network
from m3dhmr_jax.runtime.precision import single_precision
from m3dhmr_jax.types import Config


class Trained(NamedTuple):
    """A network that computes in float32, with its trained parameters."""

    network: Network
    hand: HandModel
    # The config of its training.
    config_json: str


@single_precision()
def load_trained(path: Path) -> Trained:
    """The network of a run's newest valid checkpoint, or of a weights file.

    Raises:
        UserError: if there is no checkpoint or no config next to it, it is corrupted or of another
            hand, or its task does not train a mesh.
    """
    config: Config = load_config(path)
    hand = load_hand(config)
    network = create_network(config, hand, abstract=True)
    state = restore_eval_state(network, path, str(path) if path.is_file() else NEWEST)
    text = config_text(config)
    if config.model.compute_dtype != "float32":
        config.model.compute_dtype = "float32"
        network = create_network(config, hand, abstract=True)
    network = network._replace(params=state.params, stats=state.stats)
    return Trained(network, hand, text)
