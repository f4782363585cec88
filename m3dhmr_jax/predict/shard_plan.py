"""Which images are predicted into which files, from what is wanted and what is finished."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.shard_folder import Shard, Version, shard_name


class ShardTask(NamedTuple):
    """One file to write."""

    name: str
    # To be predicted.
    images: dict[str, Version]
    # Whose rows stay as they are in the file of this name.
    kept: list[str]


class Plan(NamedTuple):
    """The files to write, and the numbers of images to report."""

    tasks: list[ShardTask]
    n_new: int
    n_kept: int
    # Why images are predicted again, and how many.
    reasons: Counter[str]

    def __str__(self) -> str:
        parts = [f"{self.n_new} new", f"{self.n_kept} finished before"]
        parts += [f"{n} predicted again ({reason})" for reason, n in self.reasons.items()]
        return ", ".join(parts)


def plan_shards(
    wanted: Mapping[str, Version],
    shards: Mapping[str, Shard],
    settings: Mapping[str, Any],
    batch_size: int,
) -> Plan:
    """Predicts what is new or out of date; a file with such an image is written again.

    Raises:
        UserError: if other settings apply to images that are not among the wanted: their rows would
            stay between those of these settings.
    """
    tasks, reasons = [], Counter()
    known: set[str] = set()
    for name, shard in shards.items():
        different = _differences(shard.settings, settings)
        foreign = shard.images.keys() - wanted.keys()
        if different and foreign:
            raise UserError(
                f"{name} contains {min(foreign)}, not an image of this call, as predicted with "
                f"other {different}, and such predictions must not be mixed: choose another --out, "
                "or name all images of the earlier calls"
            )
        changed: dict[str, Version] = {}
        for image in wanted.keys() & shard.images.keys():
            reason = _reason(wanted[image], shard.images[image].version, different)
            if reason:
                changed[image] = wanted[image]
                reasons[reason] += 1
        if changed:
            kept = [image for image in shard.images if image not in changed]
            tasks.append(ShardTask(name, dict(sorted(changed.items())), kept))
        known |= shard.images.keys()
    new = [image for image in wanted if image not in known]
    for i in range(0, len(new), batch_size):
        images = new[i : i + batch_size]
        tasks.append(ShardTask(shard_name(images), {each: wanted[each] for each in images}, []))
    n_kept = len(wanted) - len(new) - reasons.total()
    return Plan(tasks, len(new), n_kept, reasons)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The names of settings that differ; "" if none."""
    names = dict.fromkeys([*new, *old])
    return ", ".join(name for name in names if old.get(name) != new.get(name))


def _reason(wanted: Version, finished: Version, different: str) -> str:
    """Why an image has to be predicted again; "" if it has not."""
    if different:
        return f"other {different}"
    if wanted[:2] != finished[:2]:
        return "file changed"
    return "boxes changed" if wanted != finished else ""
