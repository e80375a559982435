"""Trained weights as safetensors: plain names and tensors, and a few words on what they are."""

import json
from pathlib import Path

import torch

from loaders.atomic import atomic_file
from loaders.errors import FeedrateError


def save_weights(path: Path, state: dict[str, torch.Tensor], about: dict[str, str]) -> None:
    """Write a module's state_dict atomically, under its own names and in plain layout, with `about` as the metadata."""
    from safetensors.torch import save

    # copies: safetensors refuses tensors that share memory, as tied weights do, and layouts other than the plain one
    plain = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    payload = _in_order(save(plain, metadata=about))
    try:
        with atomic_file(path) as file:
            file.write(payload)
    except OSError as error:
        raise FeedrateError(f"weights {path} cannot be written: {error}; checkpoints are untouched") from error


def _in_order(payload: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors writes them in another order each time, and the same weights
    are to be the same bytes."""
    start = 8 + int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8:start])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of 8, as safetensors lays them
    return len(text).to_bytes(8, "little") + text + payload[start:]
