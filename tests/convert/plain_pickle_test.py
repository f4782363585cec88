import io
import os
import pickle
from collections import OrderedDict

import pytest

from m3dhmr_jax.convert import plain_pickle
from tests.convert.torch_writer import Call, Name, pickled

PLAIN = {"a": [1, -(2**40), 2.5, None, True, False], "b": ("x", (), {}), 3: "y", "long": [0] * 2000}


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def read(program: bytes, **admitted):
    return plain_pickle.load(io.BytesIO(program), admitted)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_come_back(protocol):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


def test_one_after_the_other_is_read_from_a_stream():
    stream = io.BytesIO(pickle.dumps([1], 2) + pickle.dumps([2], 4) + b"rest")
    assert [plain_pickle.load(stream, {}), plain_pickle.load(stream, {})] == [[1], [2]]
    assert stream.read() == b"rest"


def test_admitted_functions_are_called_and_their_state_is_dropped():
    value = OrderedDict([("a", 1), ("b", 2)])
    value.note = "kept as an attribute"
    found = plain_pickle.load(
        io.BytesIO(pickle.dumps(value, 2)), {"collections.OrderedDict": lambda: {}}
    )
    assert found == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", range(6))
def test_what_would_run_a_command_is_refused_and_has_not_run(tmp_path, protocol):
    canary = tmp_path / "canary"
    program = pickle.dumps({"weights": 1, "then": Harm(f"touch {canary}")}, protocol)
    pickle.loads(program)
    assert canary.exists()  # As Python's own loader does it.
    canary.unlink()
    with pytest.raises(ValueError, match=r"posix\.system|the pickle uses"):
        read(program)
    assert not canary.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02(S'touch'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00xo.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02}}Q.",  # BINPERSID, where nobody answers.
    ],
)
def test_other_instructions_that_reach_outside_are_refused(program):
    with pytest.raises(ValueError, match="refused"):
        read(program)


def test_only_what_was_admitted_is_called():
    with pytest.raises(ValueError, match="which is no function"):
        read(pickled(Call(Name("torch", "FloatStorage"), ())), **{"torch.FloatStorage": 4})
    with pytest.raises(ValueError, match="which is no function"):
        read(b"\x80\x02})R.", **{})
    with pytest.raises(ValueError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read(pickled(Call(Name("torch.nn.modules.linear", "Linear"), ())))


@pytest.mark.parametrize(
    ("program", "why"),
    [
        (b"", "exhausted"),
        (b"\x80\x02", "exhausted"),
        (b"\x80\x02X\xff\x00\x00\x00short.", "expected 255 bytes"),
        (b"\x80\x02t.", "damaged"),  # A tuple since a mark that was never set.
        (b"\x80\x02h\x07.", "damaged"),  # Something that was never stored.
        (b"\x80\x02K\x01K\x02a.", "appends to something"),
        (b"\x80\x02]K\x01K\x02s.", "sets keys of something"),
        (b"\x80\x02}(K\x01K\x02K\x03u.", "shorter"),
        (b"\x80\x02})K\x01s.", "a key is a tuple"),
    ],
)
def test_damage_is_named(program, why):
    with pytest.raises(ValueError, match=why):
        read(program)


def test_a_store_far_away_takes_no_memory():
    assert read(b"\x80\x02K\x05r\xff\xff\xff\xffj\xff\xff\xff\xff.") == 5
