from m3dhmr_jax.training.tensorboard import TensorBoardWriter

from tests.faults import small_disk


def test_a_full_disk_costs_curves_and_nothing_else(tmp_path, caplog):
    folder = tmp_path / "events"
    with small_disk(folder, 8192):
        events = TensorBoardWriter(folder)
        for step in range(500):
            events.add_scalar("train/mesh", 0.5, step)
        events.close()
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1, said
        assert said[0].startswith(f"{folder}: curves are being lost: ")
        assert "No space left on device" in said[0]
