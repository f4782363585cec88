import io
import os
import pickle
from collections import OrderedDict

import pytest

from m3dhmr_jax.errors import UserError
from m3dhmr_jax.hand import safe_pickle
from tests.convert.torch_writer import Call, Name, pickled

PLAIN = {"a": [1, -(2**40), 2.5, None, True, False], "b": ("x", (), {}), 3: "y", "long": [0] * 2000}


class Harm:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def read(program: bytes, **allowed):
    return safe_pickle.load(io.BytesIO(program), allowed)


@pytest.mark.parametrize("protocol", range(6))
def test_load_returns_plain_data(protocol):
    assert read(pickle.dumps(PLAIN, protocol)) == PLAIN


def test_load_reads_consecutive_pickles_of_a_stream():
    stream = io.BytesIO(pickle.dumps([1], 2) + pickle.dumps([2], 4) + b"rest")
    assert [safe_pickle.load(stream, {}), safe_pickle.load(stream, {})] == [[1], [2]]
    assert stream.read() == b"rest"


def test_load_calls_allowed_functions_and_drops_their_state():
    value = OrderedDict([("a", 1), ("b", 2)])
    value.note = "kept as an attribute"
    found = safe_pickle.load(
        io.BytesIO(pickle.dumps(value, 2)), {"collections.OrderedDict": lambda: {}}
    )
    assert found == {"a": 1, "b": 2}


@pytest.mark.parametrize("protocol", range(6))
def test_load_rejects_call_of_system_before_running_it(tmp_path, protocol):
    canary = tmp_path / "canary"
    program = pickle.dumps({"weights": 1, "then": Harm(f"touch {canary}")}, protocol)
    pickle.loads(program)
    assert canary.exists()  # As Python's own loader does it.
    canary.unlink()
    with pytest.raises(UserError, match=r"(posix|nt)\.system"):
        read(program)
    assert not canary.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02(S'touch'\nios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nX\x01\x00\x00\x00xo.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02}}Q.",  # BINPERSID, where nothing resolves it.
    ],
)
def test_load_rejects_other_instructions_that_reach_outside(program):
    with pytest.raises(UserError, match=r"pickle|rejected"):
        read(program)


def test_load_calls_only_what_is_allowed():
    with pytest.raises(UserError, match="not a function"):
        read(pickled(Call(Name("torch", "FloatStorage"), ())), **{"torch.FloatStorage": 4})
    with pytest.raises(UserError, match="not a function"):
        read(b"\x80\x02})R.", **{})
    with pytest.raises(UserError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read(pickled(Call(Name("torch.nn.modules.linear", "Linear"), ())))


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02X\xff\x00\x00\x00short.",
        b"\x80\x02t.",  # A tuple since a mark that was never set.
        b"\x80\x02h\x07.",  # Something that was never stored.
        b"\x80\x02K\x01K\x02a.",  # Appends to a number.
        b"\x80\x02]K\x01K\x02s.",  # Sets a key of a list.
        b"\x80\x02}(K\x01K\x02K\x03u.",  # A key without a value.
        b"\x80\x02})K\x01s.",  # A tuple as a key: hashing nested ones could take forever.
        b"\x80\x02()K\x01d.",
        b"\x80\x02}(])K\x01u.",
    ],
)
def test_load_rejects_corrupted_pickle(program):
    with pytest.raises(UserError, match="pickle"):
        read(program)


def test_load_hashes_nothing_of_a_set():
    """Each of 60 tuples holds the one before twice, so hashing the last would never end."""
    rows = b")q\x00" + b"".join(b"h%ch%c\x86q%c" % (i, i, i + 1) for i in range(60))
    for program in (b"\x80\x04\x8f(" + rows + b"\x90.", b"\x80\x04(" + rows + b"\x91."):
        assert isinstance(read(program), list)


def test_load_sets_state_of_records_only():
    """Of a Named, a dictionary and a list it is dropped; a Record keeps it unchanged."""
    allowed = {"a.Type": None, "a.Record": lambda *args: safe_pickle.Record("a", args)}
    named = read(b"\x80\x02ca\nType\n}X\x0a\x00\x00\x00stands_forK\x01sb.", **allowed)
    assert named == safe_pickle.Named("a.Type", None)
    assert read(b"\x80\x02}}X\x01\x00\x00\x00aK\x01sb.") == {}
    record = read(b"\x80\x02ca\nRecord\n)R}X\x04\x00\x00\x00kindK\x01sb.", **allowed)
    assert (record.kind, record.args, record.state) == ("a", (), {"kind": 1})


def test_load_takes_no_memory_for_a_distant_memo_index():
    assert read(b"\x80\x02K\x05r\xff\xff\xff\xffj\xff\xff\xff\xff.") == 5
