"""Exports a trained network to the format that the suffix of a file names."""

from collections.abc import Callable
from pathlib import Path

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.export.extras import require_extra
from m3dhmr_jax.export.trained import Trained, load_trained
from m3dhmr_jax.runtime.files import check_new

# Writes a network to a path that is new, as half precision or not, and prints how exact it is.
Exporter = Callable[[Trained, Path, bool], None]


def export_network(checkpoint: Path, out: Path, *, half: bool) -> None:
    """Writes the network of a run or of a weights file, and compares what was written with JAX.

    Raises:
        UserError: if the suffix of `out` is unknown or it exists, its extra is not installed, the
            checkpoint is missing, corrupted or not one of a mesh, or what was written does not
            compute what JAX does.
        DiskFullError: if the disk is full.
    """
    if out.suffix not in EXPORTERS:
        raise UserError(
            f"--out {out}: the suffix says what is written; it must be one of "
            f"{', '.join(EXPORTERS)}"
        )
    check_new(out)
    export = EXPORTERS[out.suffix]()
    export(load_trained(checkpoint), out, half)


def _onnx() -> Exporter:
    require_extra("export", "onnx", "onnxruntime")
    from m3dhmr_jax.export.onnx_file import export_onnx

    return export_onnx


def _stablehlo() -> Exporter:
    from m3dhmr_jax.export.stablehlo import export_stablehlo

    return export_stablehlo


def _litert() -> Exporter:
    require_extra("litert", "litert_converter", "ai_edge_litert")
    from m3dhmr_jax.export.litert import export_litert

    return export_litert


# Each imports what it needs.
EXPORTERS: dict[str, Callable[[], Exporter]] = {
    ".onnx": _onnx,
    ".jaxexport": _stablehlo,
    ".tflite": _litert,
}
