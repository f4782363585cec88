"""PyTorch's tensors as its pickles describe them: views of storages outside the pickle."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from m3dhmr_jax.errors import UserError
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
    """A flat array that tensors are views of."""

    key: str
    dtype: np.dtype
    count: int


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A view of a storage; offset and strides count elements, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def storage(reference: Any) -> Storage:
    """The storage that a pickle refers to; raises UserError for any other reference."""
    match reference:
        case ("storage", Named(stands_for=np.dtype() as dtype), str(key), str(), int(count), *more):
            if any(part is not None for part in more):
                raise UserError("rejected: tensors that share storages as before PyTorch 0.4")
            return Storage(key, dtype, count)
    raise UserError(f"rejected: it refers to {reference!r:.120}, which is not a tensor storage")


def rebuilt(
    source: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    requires_grad: Any = None,
    hooks: Any = None,
    metadata: Any = None,
) -> Tensor:
    """Our `torch._utils._rebuild_tensor_v2`."""
    del requires_grad, hooks
    numbers = [offset, *shape, *strides]
    if not isinstance(source, Storage) or not all(isinstance(n, int) for n in numbers):
        raise UserError("corrupted pickle (a tensor's description is not numeric)")
    if metadata:
        raise UserError(f"rejected: a tensor with the metadata {metadata!r:.80}")
    return Tensor(source, offset, tuple(shape), tuple(strides))


def view(tensor: Tensor, content: memoryview, byte_order: str = "little") -> np.ndarray:
    """The tensor as a view of its storage's bytes.

    Raises:
        UserError: if the storage's size is not as the pickle states, or if the tensor exceeds it or
            repeats its elements (which could make it arbitrarily large).
    """
    dtype, count = tensor.storage.dtype, tensor.storage.count
    if len(content) != count * dtype.itemsize:
        raise UserError(
            f"its storage of {count} {dtype} has {len(content)} bytes in the file, "
            f"not {count * dtype.itemsize}"
        )
    size = math.prod(tensor.shape)
    if size == 0:
        return np.zeros(tensor.shape, dtype)
    steps = zip(tensor.shape, tensor.strides, strict=True)
    last = tensor.offset + sum((n - 1) * stride for n, stride in steps)
    if min((tensor.offset, *tensor.shape, *tensor.strides)) < 0 or max(last + 1, size) > count:
        raise UserError(
            f"offset {tensor.offset}, shape {tensor.shape} and strides {tensor.strides} exceed "
            f"its storage of {count} elements"
        )
    if byte_order == "little":
        flat = np.frombuffer(content, dtype)
    else:  # Two-byte dtypes have no big-endian version in JAX.
        flat = np.frombuffer(content, f"u{dtype.itemsize}").byteswap().view(dtype)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    return np.ndarray(tensor.shape, dtype, flat, tensor.offset * dtype.itemsize, strides)


def leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that is not a container, named by its path of keys, joined by dots.

    Each container is visited once, even if it contains itself or is contained in many others.
    """
    pending, visited = [("", value)], set()
    while pending:
        name, item = pending.pop()
        if not isinstance(item, dict | list | tuple):
            yield name, item
        elif id(item) not in visited:
            visited.add(id(item))
            pairs = list(item.items() if isinstance(item, dict) else enumerate(item))
            prefix = f"{name}." if name else ""
            pending += [(f"{prefix}{key}", child) for key, child in reversed(pairs)]


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
