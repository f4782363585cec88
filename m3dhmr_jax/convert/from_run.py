"""From a run to one weights file that predicts, and trains on, without the run's folder."""

from pathlib import Path

from m3dhmr_jax.builders import create_network, load_hand
from m3dhmr_jax.checkpoints.restore import NEWEST, restore_eval_state
from m3dhmr_jax.checkpoints.run_config import load_config, network_text
from m3dhmr_jax.checkpoints.weights import check_weights_path, save_weights
from m3dhmr_jax.runtime.files import expand_home


@expand_home
def write_run(workdir: Path, out: Path, *, half: bool) -> list[str]:
    """Writes what evaluation reads of a run's newest valid checkpoint; returns a report.

    Args:
        half: store parameters in half precision; they are read as float32.

    Raises:
        UserError: if there is no checkpoint or no config, or `out` exists or is not named as a
            weights file.
    """
    check_weights_path(out)
    config = load_config(workdir)
    network = create_network(config, load_hand(config), abstract=True)
    state = restore_eval_state(network, workdir, NEWEST)
    metadata = {
        "config": network_text(config),
        "hierarchy": str(network.compatibility["hierarchy"]),
        "step": str(state.step),
    }
    save_weights(out, state.params, state.stats, metadata, half=half)
    return [f"{workdir}: step {state.step}", f"Wrote {out}: {out.stat().st_size / 1e6:.2f} MB"]
