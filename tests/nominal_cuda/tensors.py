"""Tensors of the host's that say they lie on cuda:0, and what torch refuses of them or waits for."""

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from .streams import GPU, HOST, Stream

UNWRITTEN = 0xA5  # in memory that a copy has still to fill
_T = torch.Tensor
_MOVES_HOST_DATA = {torch.tensor, torch.as_tensor, _T.new_tensor}
_WAITS = {
    *(torch.nonzero, _T.nonzero, torch.argwhere, _T.argwhere, torch.masked_select, _T.masked_select),
    *(torch.unique, _T.unique, torch.unique_consecutive, torch.bincount, _T.bincount),
    *(torch.equal, _T.equal, torch.allclose, _T.allclose, torch.is_nonzero, _T.is_nonzero, _T.unique_consecutive),
    *(torch.repeat_interleave, _T.repeat_interleave, torch.linalg.eigh, torch.linalg.svd),
}
_TAKES_BOTH = {_T.data.__set__, torch._has_compatible_shallow_copy_type, torch.result_type}
# elsewhere a tensor of the host's without dimensions counts as a number
_TAKES_NO_NUMBERS = {
    *(torch.cat, torch.stack, torch.matmul, _T.matmul, _T.__matmul__, torch.index_select, _T.index_select),
    *(torch.gather, _T.gather, _T.scatter_, _T.scatter_add_, torch.addmm, functional.linear, functional.conv2d),
}


def on_gpu(tensor: torch.Tensor) -> bool:
    """Whether it says so. What a tensor is, its memory knows, so all views of it are the same."""
    return hasattr(tensor.untyped_storage(), "of_gpu")


def is_page_locked(tensor: torch.Tensor) -> bool:
    return hasattr(tensor.untyped_storage(), "is_page_locked")


def lock_pages(tensor: torch.Tensor) -> torch.Tensor:
    tensor.untyped_storage().is_page_locked = True
    return tensor


def record_stream(tensor: torch.Tensor, stream: Stream) -> None:
    tensor.untyped_storage().of_gpu.readers.add(stream)


class NominalCuda(TorchFunctionMode):
    """Within it, in this thread, `device="cuda"` names memory of the host's.

    waited  what made the host wait for the device, by name, in order
    """

    def __init__(self) -> None:
        super().__init__()
        self.default_stream = Stream()
        self.refuses_waiting = False
        self.waited: list[str] = []
        self._of_thread = threading.local()

    @property
    def stream(self) -> Stream:
        """This thread's current one."""
        return getattr(self._of_thread, "stream", self.default_stream)

    @stream.setter
    def stream(self, stream: Stream) -> None:
        self._of_thread.stream = stream

    def waits(self, func: Any) -> None:
        """Note, or refuse, that the host waits for the device."""
        self.waited.append(_name(func))
        if self.refuses_waiting:
            raise RuntimeError(f"called a synchronizing CUDA operation: {_name(func)}")

    def __torch_function__(self, func, types, args=(), kwargs=None):
        special = _SPECIAL.get(func, NominalCuda._compute)
        if special not in _ASK:
            self.stream.copy_until(self.stream.num_asked())  # what a stream is given, it does in order
        return special(self, func, args, dict(kwargs or {}))

    def _compute(self, func, args, kwargs):
        """What `func` returns, said to lie where torch would have it."""
        given = _tensors((args, kwargs))
        gpu = [tensor for tensor in given if on_gpu(tensor)]
        self._refuse_mixed(func, given, gpu)
        asked = kwargs.get("device")
        is_on_gpu = bool(gpu) if asked is None else torch.device(asked).type == "cuda"
        if asked is not None and is_on_gpu:
            kwargs["device"] = HOST
        is_pinned = kwargs.pop("pin_memory", False)
        if (is_on_gpu and func in _MOVES_HOST_DATA) or (gpu and func in _WAITS):
            self.waits(func)
        result = func(*args, **kwargs)
        made = _tensors(result)
        if made:  # and it did not only ask for a shape
            self._refuse_foreign(func, gpu)
        for tensor in made:
            if is_on_gpu and not any(tensor is one for one in given):
                self.own(tensor)
            elif is_pinned:
                lock_pages(tensor)
        return result

    def _refuse_mixed(self, func, given, gpu) -> None:
        host = [one for one in given if not on_gpu(one)]
        is_number = len(host) == 1 and not host[0].dim() and func not in _TAKES_NO_NUMBERS
        if is_number and _name(func).endswith("_"):  # `add_`, and `__iadd__` but no other of Python's own
            is_written = not _name(func).endswith("__") or _name(func).rpartition(".")[2].startswith("__i")
            is_number = not (is_written and host[0] is given[0])
        if gpu and host and not is_number and func not in _TAKES_BOTH:
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
                f" ({_name(func)} of {[list(tensor.shape) for tensor in given]})"
            )

    def _refuse_foreign(self, func, gpu) -> None:
        for tensor in gpu:
            memory = tensor.untyped_storage().of_gpu
            is_known = memory.stream is self.default_stream or self.stream in memory.readers
            assert is_known, f"{_name(func)} reads memory of another stream, which was not told by record_stream"

    def own(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, from now on the device's; allocated on the current stream, unless its memory is there already."""
        if not on_gpu(tensor):
            tensor.untyped_storage().of_gpu = SimpleNamespace(stream=self.stream, readers={self.stream})
        return tensor

    def _copy(self, func, source, target, non_blocking):
        """Fill `target` from `source`, which is of the other device."""
        has_waited = not (non_blocking and on_gpu(target) and is_page_locked(source))
        if has_waited:
            self._refuse_foreign(func, [one for one in (source, target) if on_gpu(one)])
            self.waits(func)
        if has_waited or self.stream is self.default_stream:
            target.copy_(source)
        else:
            if target.untyped_storage().nbytes() == target.nbytes:  # no neighbours
                target.untyped_storage().fill_(UNWRITTEN)
            self.stream.copy_later(lambda: target.copy_(source))
        return target

    # ---- what is not plain arithmetic

    def _device(self, func, args, kwargs):
        return GPU if on_gpu(args[0]) else func(*args)

    def _is_cuda(self, func, args, kwargs):
        return on_gpu(args[0])

    def _is_cpu(self, func, args, kwargs):
        return func(*args) and not on_gpu(args[0])

    def _is_pinned(self, func, args, kwargs):
        return is_page_locked(args[0])

    def _to(self, func, args, kwargs):
        source, *rest = args
        if rest and isinstance(rest[0], torch.Tensor):  # to where and as what another one is
            rest[0:1] = [GPU if on_gpu(rest[0]) else HOST, rest[0].dtype]
        has_copy = kwargs.pop("copy", False)
        device, dtype, non_blocking, layout = torch._C._nn._parse_to(*rest, **kwargs)
        how = {"dtype": dtype or source.dtype, "memory_format": layout or torch.preserve_format}
        if device is None or device.type == ("cuda" if on_gpu(source) else "cpu"):
            return self._compute(_T.to, (source,), {**how, "copy": has_copy})
        return self._carry(func, source, device, non_blocking, how)

    def _cuda(self, func, args, kwargs):
        return self._to(func, (args[0], GPU), kwargs)

    def _cpu(self, func, args, kwargs):
        return self._to(func, (args[0], HOST), kwargs)

    @torch.no_grad()
    def _carry(self, func, source, device, non_blocking, how):
        """A copy on another device; a leaf, as images, labels and weights are."""
        if device.type not in ("cuda", "cpu"):
            return source.to(device, **how)
        target = torch.empty_like(source, **how, requires_grad=False)
        return self._copy(func, source.detach(), self.own(target) if device.type == "cuda" else target, non_blocking)

    def _copy_into(self, func, args, kwargs):
        target, source, non_blocking = (*args, *kwargs.values(), False)[:3]
        if on_gpu(target) == on_gpu(source):
            return self._compute(func, (target, source), {})
        return self._copy(func, source, target, non_blocking)

    def _index(self, func, args, kwargs):
        """Reading and writing at indices: of the host's they are copied, masks and numbers of the device's looked at,
        and a number that is written to indices is copied. But a single mask is filled with a number without."""
        indices = _tensors(args[1])
        if not on_gpu(args[0]):
            if any(on_gpu(index) for index in indices):
                raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
            return self._compute(func, args, kwargs)
        self._refuse_foreign(func, args[:1])
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        waits = any(isinstance(part, list | np.ndarray) for part in parts)
        waits |= any((not on_gpu(index) and index.dim()) or (on_gpu(index) and not index.dim()) for index in indices)
        is_mask = [index.dtype in (torch.bool, torch.uint8) for index in indices]
        if len(args) == 2:
            waits |= any(is_mask)
        else:
            is_number = not isinstance(args[2], torch.Tensor) or not (args[2].dim() or on_gpu(args[2]))
            is_filled = len(parts) == 1 and is_mask == [True]
            waits |= bool(indices) and not is_filled if is_number else any(is_mask) or not on_gpu(args[2])
        if waits:
            self.waits(func)
        result = func(*args)
        return self.own(result) if isinstance(result, torch.Tensor) else result

    def _look_at(self, func, args, kwargs):
        gpu = [tensor for tensor in _tensors((args, kwargs)) if on_gpu(tensor)]
        if gpu:
            self._refuse_foreign(func, gpu)
            self.waits(func)
        return func(*args, **kwargs)

    def _numpy(self, func, args, kwargs):
        if on_gpu(args[0]):
            raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")
        return func(*args, **kwargs)

    def _pin_memory(self, func, args, kwargs):
        if on_gpu(args[0]):
            raise RuntimeError("cannot pin a tensor of the device: only those of the host can be pinned")
        return args[0] if is_page_locked(args[0]) else lock_pages(args[0].clone())

    def _grad(self, func, args, kwargs):
        """Made below Python, where its parameter is."""
        gradient = func(*args)
        return self.own(gradient) if gradient is not None and on_gpu(args[0]) else gradient


_SPECIAL = {
    _T.device.__get__: NominalCuda._device,
    _T.is_cuda.__get__: NominalCuda._is_cuda,
    _T.is_cpu.__get__: NominalCuda._is_cpu,
    _T.is_pinned: NominalCuda._is_pinned,
    _T.grad.__get__: NominalCuda._grad,
    _T.to: NominalCuda._to,
    _T.cuda: NominalCuda._cuda,
    _T.cpu: NominalCuda._cpu,
    _T.copy_: NominalCuda._copy_into,
    _T.__getitem__: NominalCuda._index,
    _T.__setitem__: NominalCuda._index,
    _T.pin_memory: NominalCuda._pin_memory,
    _T.numpy: NominalCuda._numpy,
    _T.__array__: NominalCuda._numpy,
    **dict.fromkeys((_T.item, _T.tolist, _T.__repr__, _T.__contains__), NominalCuda._look_at),
    **dict.fromkeys((_T.__format__, _T.__complex__), NominalCuda._look_at),
    **dict.fromkeys((_T.__bool__, _T.__int__, _T.__float__, _T.__index__), NominalCuda._look_at),
}


# what is known of a tensor without its values
_ASK = {NominalCuda._device, NominalCuda._is_cuda, NominalCuda._is_cpu, NominalCuda._is_pinned}


def _name(func: Any) -> str:
    return getattr(func, "__qualname__", str(func))


def _tensors(tree: object) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor) and leaf.layout is torch.strided]
