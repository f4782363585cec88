"""Reads the part of `--config=configs/ablation.py:decoder=dsconv,roi=false` behind the colon."""

from collections.abc import Mapping


def choose(text: str, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """A value for each name in `allowed`: the one that `text` gives it, else its first.

    Raises:
        ValueError: if `text` is no list of name=value, or has a name or a value not in `allowed`,
            or a name twice.
    """
    chosen = {}
    for part in text.split(",") if text else ():
        name, equals, value = part.partition("=")
        if not equals or name not in allowed or name in chosen:
            raise ValueError(
                f"{part!r} in {text!r} must be one of {', '.join(f'{n}=...' for n in allowed)}, "
                "each at most once, with commas between them"
            )
        if value not in allowed[name]:
            raise ValueError(f"{name}={value} must be one of {', '.join(allowed[name])}")
        chosen[name] = value
    return {name: chosen.get(name, values[0]) for name, values in allowed.items()}
