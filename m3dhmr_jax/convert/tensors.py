"""What PyTorch's pickles say of tensors: views of storages, which lie outside of the pickle."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from m3dhmr_jax.hand.safe_pickle import Named, fill

TYPES = {
    "DoubleStorage": np.dtype(np.float64),
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """A row of numbers that tensors look into."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage, in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def storage(reference: Any) -> Storage:
    """The storage that a pickle refers to; raises ValueError for any other reference."""
    match reference:
        case ("storage", Named(stands_for=np.dtype() as dtype), str(key), str(), int(count), *more):
            if any(part is not None for part in more):
                raise ValueError("refused: its tensors share storages as before PyTorch 0.4")
            return Storage(key, dtype, count)
    raise ValueError(f"refused: it refers to {reference!r:.120}, which is no storage of numbers")


def rebuilt(
    source: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any = None,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """What `torch._utils._rebuild_tensor_v2` stands for."""
    del requires_grad, hooks
    numbers = [offset, *shape, *strides]
    if not isinstance(source, Storage) or not all(isinstance(n, int) for n in numbers):
        raise ValueError("damaged pickle (a tensor is described by other things than numbers)")
    if metadata:
        raise ValueError(f"refused: a tensor that is to be read by the rule {metadata!r:.80}")
    return Tensor(source, offset, tuple(shape), tuple(strides))


def view(tensor: Tensor, content: memoryview, byte_order: str = "little") -> np.ndarray:
    """The tensor as a view of its storage's bytes.

    Raises:
        ValueError: if the storage has another size than the pickle says, or if the tensor reaches
            outside of it or repeats its numbers (which could make it as large as one likes).
    """
    dtype, count = tensor.storage.dtype, tensor.storage.count
    if len(content) != count * dtype.itemsize:
        raise ValueError(
            f"its storage of {count} {dtype} has {len(content)} bytes in the file, "
            f"not {count * dtype.itemsize}"
        )
    size = math.prod(tensor.shape)
    if size == 0:
        return np.zeros(tensor.shape, dtype)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * stride for n, stride in steps)
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or max(last + 1, size) > count:
        raise ValueError(
            f"with offset {tensor.offset}, shape {tensor.shape} and strides {tensor.strides} it is "
            f"no part of its storage of {count} numbers"
        )
    if byte_order == "little":
        row = np.frombuffer(content, dtype)
    else:  # Types of two bytes have no big-endian twin in JAX.
        row = np.frombuffer(content, f"u{dtype.itemsize}").byteswap().view(dtype)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.ndarray(tensor.shape, dtype, row, tensor.offset * dtype.itemsize, strides)


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """All that is no container, named by the keys that lead there, joined by dots.

    A container is entered once, however often it is found: in itself, or in so many others that
    the names would never end.
    """
    waiting, entered = [("", value)], set()
    while waiting:
        name, item = waiting.pop()
        if not isinstance(item, dict | list | tuple):
            yield name, item
        elif id(item) not in entered:
            entered.add(id(item))
            pairs = list(item.items() if isinstance(item, dict) else enumerate(item))
            prefix = f"{name}." if name else ""
            waiting += [(f"{prefix}{key}", part) for key, part in reversed(pairs)]


def _same(value: Any, *_: Any) -> Any:
    return value


def _dictionary(pairs: Any = ()) -> dict[Any, Any]:
    return fill({}, pairs)


ADMITTED = {
    "collections.OrderedDict": _dictionary,
    "collections.Counter": _same,
    "torch.Size": _same,
    "torch._utils._rebuild_tensor": rebuilt,
    "torch._utils._rebuild_tensor_v2": rebuilt,
    "torch._utils._rebuild_parameter": _same,
    "torch.nn.parameter.Parameter": _same,
    **{f"torch.{name}": dtype for name, dtype in TYPES.items()},
    **{f"torch.cuda.{name}": dtype for name, dtype in TYPES.items()},
}
