import numpy as np
import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.predict.shard_folder import Finished, Shard, Version, shard_name
from m3dhmr_jax.predict.shard_plan import ShardTask, plan_shards

SETTINGS = {"weights": "1", "K": None, "views": 1}
A, B = Version(1, 10, None), Version(2, 20, None)


def shard(*images, settings=SETTINGS, **versions):
    versions = dict.fromkeys(images, A) | versions
    finished = {image: Finished(version, None, 1) for image, version in versions.items()}
    return Shard(settings, finished)


def test_new_images_go_into_new_files():
    plan = plan_shards({"a": A, "b": B, "c": A}, {}, SETTINGS, 2)
    assert plan.tasks == [
        ShardTask(shard_name(["a", "b"]), {"a": A, "b": B}, []),
        ShardTask(shard_name(["c"]), {"c": A}, []),
    ]
    assert (plan.n_new, plan.n_kept, plan.reasons) == (3, 0, {})


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        (A._replace(file_bytes=2), "file changed"),
        (A._replace(file_mtime_ns=11), "file changed"),
        (A._replace(boxes_sha256="1"), "boxes changed"),
    ],
)
def test_an_image_is_predicted_again_if_its_input_changed(version, reason):
    plan = plan_shards({"a": version, "b": A}, {"s": shard("a", "b", "gone")}, SETTINGS, 8)
    assert plan.tasks == [ShardTask("s", {"a": version}, ["b", "gone"])]
    assert (plan.n_new, plan.n_kept, plan.reasons) == (0, 1, {reason: 1})
    assert str(plan) == f"0 new, 1 finished before, 1 predicted again ({reason})"


def test_all_images_are_predicted_again_with_other_settings():
    wanted = {"a": A, "b": B, "c": A}
    old = {"s": shard("a", b=B), "t": shard("c")}
    plan = plan_shards(wanted, old, SETTINGS | {"views": 2, "K": [1.0]}, 8)
    assert [(task.name, task.images, task.kept) for task in plan.tasks] == [
        ("s", {"a": A, "b": B}, []),
        ("t", {"c": A}, []),
    ]
    assert plan.reasons == {"other K, views": 3}
    half = old | {"t": shard("c", settings=SETTINGS | {"views": 2})}  # Interrupted.
    assert [task.name for task in plan_shards(wanted, half, SETTINGS, 8).tasks] == ["t"]


def test_other_settings_are_rejected_if_other_images_would_keep_theirs():
    shards = {"s": shard("a", "b"), "t": shard("c")}
    assert plan_shards({"c": B}, shards, SETTINGS, 8).n_kept == 0
    with pytest.raises(UserError, match=r"a, .*other weights, .*--out"):
        plan_shards({"b": A, "c": A}, shards, SETTINGS | {"weights": "2"}, 8)


def test_any_sequence_of_changes_ends_with_each_image_once_and_up_to_date():
    rng = np.random.default_rng(0)
    shards, settings = {}, SETTINGS
    for _ in range(300):
        wanted = {
            f"{i}": Version(int(rng.integers(2)), 0, None) for i in range(12) if rng.random() < 0.7
        }
        settings = SETTINGS | {"views": int(rng.integers(1, 3))}
        before = {image: each for s in shards.values() for image, each in s.images.items()}
        try:
            plan = plan_shards(wanted, shards, settings, 3)
        except UserError:
            continue
        n_done = int(rng.integers(len(plan.tasks) + 1))  # Interrupted.
        for task in plan.tasks[:n_done]:
            kept = {image: shards[task.name].images[image] for image in task.kept}
            done = {image: Finished(version, None, 0) for image, version in task.images.items()}
            shards[task.name] = Shard(settings, kept | done)
        images = [image for s in shards.values() for image in s.images]
        assert len(images) == len(set(images))
        assert before.keys() <= set(images)
        assert plan.n_new + plan.n_kept + plan.reasons.total() == len(wanted)
        if n_done == len(plan.tasks):
            after = {image: each for s in shards.values() for image, each in s.images.items()}
            assert {image: after[image].version for image in wanted} == wanted
            assert {str(s.settings) for s in shards.values()} == {str(settings)}
            assert plan_shards(wanted, shards, settings, 3).tasks == []
