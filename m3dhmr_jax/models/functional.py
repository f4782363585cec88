"""A network as pure data: graph definitions, parameters and BatchNorm statistics."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx


class Network(NamedTuple):
    """What `jax.jit` and the optimizer need of a network, and what its checkpoints must fit."""

    # The graph for training, which updates the BatchNorm statistics, and that for inference.
    graphdef: Any
    eval_graphdef: Any
    # Pure dicts of arrays, or of `jax.ShapeDtypeStruct`s if the network is abstract.
    params: Any
    stats: Any
    image_size: int
    # A JSON tree that is stored with checkpoints and compared when they are restored.
    compatibility: dict[str, Any]
    init: Callable[[], tuple[Any, Any]]

    def initialized(self) -> "Network":
        """This network with randomly initialised parameters."""
        params, stats = self.init()
        return self._replace(params=params, stats=stats)


def functional_network(
    create_module: Callable[[], nnx.Module],
    *,
    abstract: bool,
    image_size: int,
    compatibility: dict[str, Any],
) -> Network:
    """The module that `create_module` returns, split into pure data.

    If `abstract`, nothing is computed; `Network.initialized` does it later.
    """
    graphdefs = []

    def init() -> tuple[Any, Any]:
        model = create_module()
        graphdef, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
        graphdefs[:] = graphdef, nnx.graphdef(nnx.view(model, use_running_average=True))
        return nnx.to_pure_dict(params), nnx.to_pure_dict(stats)

    params, stats = jax.eval_shape(init) if abstract else init()
    graphdef, eval_graphdef = graphdefs
    return Network(graphdef, eval_graphdef, params, stats, image_size, compatibility, init)
