"""Parses the part of `--config=configs/ablation.py:decoder=dsconv,roi=false` after the colon."""

from collections.abc import Mapping

from m3dhmr_jax.errors import UserError


def choose(text: str, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """A value for each name in `allowed`: from `text`; default: its first.

    Raises:
        UserError: if `text` is not a list of name=value, or has a name or a value that is not in
            `allowed`, or repeats a name.
    """
    chosen = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not equals or name not in allowed or name in chosen:
            raise UserError(
                f"{part!r} in {text!r} must be one of {', '.join(f'{n}=...' for n in allowed)}, "
                "each at most once, with commas between them"
            )
        if value not in allowed[name]:
            raise UserError(f"{name}={value} must be one of {', '.join(allowed[name])}")
        chosen[name] = value
    return {name: chosen.get(name, values[0]) for name, values in allowed.items()}
