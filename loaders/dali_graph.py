"""DALI's pipeline for cutting, resizing and flipping as a plan says. The only file that knows DALI."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import Pipeline, fn, types

_LAYOUT_HW: dict[str, Any] = {"axis_names": "HW"}
_MAX_PREALLOCATED = 1 << 30  # bytes of a GPU's memory
# of the JPEGs, to the hardware decoder of GPUs that have one; NVIDIA's own settings run from 0.12 with 70 threads to
# 0.99 with 6
_HARDWARE_SHARE = 0.65
_DEVICE_PADDING, _HOST_PADDING = 16 << 20, 8 << 20  # bytes a thread has in advance, lest a large image allocate again


class Feed(NamedTuple):
    """What DALI needs to make one batch. It reads this memory until the batch is taken: nothing is copied.

    samples       n arrays: encoded bytes, uint8 [size], or pixels, uint8 [height, width, 3]
    window_start, window_shape   int32 [n, 2], rows before columns: the part of a sample that is decoded; inside it
    rect_start, rect_shape       int32 [n, 2]: the planned rectangle, counted from what is decoded; may reach past it
    flips         int32 [n], 1 to mirror
    """

    samples: list[NDArray[np.uint8]]
    window_start: NDArray[np.int32]
    window_shape: NDArray[np.int32]
    rect_start: NDArray[np.int32]
    rect_shape: NDArray[np.int32]
    flips: NDArray[np.int32]


@dataclass(frozen=True)
class Graph:
    """What is built: `num_rows` samples, pixels where `raw` and else JPEGs, to squares of `size_px`.

    cubic        whether to resize by DALI's cubic filter, and not by its triangle
    pads         whether a rectangle may reach past its sample's border, where `fill` is put
    whole        whether JPEGs are decoded whole and cut then, and not only where the rectangle lies
    largest      width and height in pixels of the largest sample, for memory allocated in advance
    """

    num_rows: int
    size_px: int
    fill: Sequence[int]
    cubic: bool
    raw: bool
    pads: bool
    whole: bool
    num_threads: int
    device: torch.device
    largest: tuple[int, int]

    @property
    def on_gpu(self) -> bool:
        """Whether pixels are made, and delivered, on a CUDA device."""
        return self.device.type == "cuda"

    @property
    def outlives_epochs(self) -> bool:
        """Whether what is built is kept for the next epoch: on a GPU building takes much more than threads."""
        return self.on_gpu

    @property
    def windows(self) -> bool:
        """Whether only a window of each sample is decoded."""
        return not (self.raw or self.whole)

    def build(self) -> "RunningGraph":
        """A pipeline with its threads, started."""
        # DALI's depth only says how many runs it begins by itself at first: 1, since here every run is fed by hand
        pipeline = Pipeline(
            batch_size=self.num_rows,
            num_threads=self.num_threads,
            device_id=self._device_id(),
            seed=0,
            prefetch_queue_depth=1,
        )
        with pipeline:
            inputs = self._inputs()
            if self.raw:
                images = self._filled(inputs["samples"], inputs)
                images = images.gpu() if self.on_gpu else images
            else:
                images = self._decoded(inputs)
                images = self._filled(images, inputs) if self.pads or self.whole else images
            images = fn.resize(
                images,
                size=[self.size_px, self.size_px],
                interp_type=types.INTERP_CUBIC if self.cubic else types.INTERP_LINEAR,
                antialias=True,
                subpixel_scale=False,
            )
            pipeline.set_outputs(fn.flip(images, horizontal=inputs["flips"]))
        pipeline.build()
        return RunningGraph(pipeline, self)

    @property
    def input_names(self) -> list[str]:
        """The fields of `Feed` that are used: DALI refuses to be fed with others."""
        window = ["window_start", "window_shape"] if self.windows else []
        rect = ["rect_start", "rect_shape"] if self.pads or not self.windows else []
        return ["samples", *window, *rect, "flips"]

    def _inputs(self) -> dict[str, Any]:
        numbers = {"dtype": types.INT32, "ndim": 1}
        kinds = {
            "samples": {"dtype": types.UINT8, **({"ndim": 3, "layout": "HWC"} if self.raw else {"ndim": 1})},
            "flips": {"dtype": types.INT32, "ndim": 0},
        }
        return {
            name: fn.external_source(name=name, no_copy=True, **kinds.get(name, numbers)) for name in self.input_names
        }

    def _decoded(self, inputs: dict[str, Any]) -> Any:
        """JPEGs as pixels: all of them, or only the window that is needed, to the same bits on the CPU."""
        options = {
            "output_type": types.RGB,
            "adjust_orientation": False,  # no other loader turns pictures by their EXIF data
            **(self._on_gpu_options() if self.on_gpu else {"device": "cpu"}),
        }
        if self.whole:
            return fn.decoders.image(inputs["samples"], **options)
        window = {"start": inputs["window_start"], "shape": inputs["window_shape"]}
        return fn.decoders.image_slice(inputs["samples"], **window, **_LAYOUT_HW, **options)

    def _on_gpu_options(self) -> dict[str, Any]:
        width, height = self._preallocated()
        return {
            "device": "mixed",
            "jpeg_fancy_upsampling": True,  # as on the CPU, and as Pillow does
            "hw_decoder_load": _HARDWARE_SHARE,
            "device_memory_padding": _DEVICE_PADDING,
            "host_memory_padding": _HOST_PADDING,
            "preallocate_width_hint": width,
            "preallocate_height_hint": height,
        }

    def _preallocated(self) -> tuple[int, int]:
        """The size for which the hardware decoder takes memory in advance, for each of its share of the batch. (0, 0)
        where the largest of the set, width and height of which need not be one image's, would take too much."""
        width, height = self.largest
        num_bytes = 3 * width * height * self.num_rows * _HARDWARE_SHARE
        return (width, height) if num_bytes <= _MAX_PREALLOCATED else (0, 0)

    def _filled(self, images: Any, inputs: dict[str, Any]) -> Any:
        return fn.slice(
            images,
            start=inputs["rect_start"],
            shape=inputs["rect_shape"],
            out_of_bounds_policy="pad",
            fill_values=list(self.fill),
            **_LAYOUT_HW,
        )

    def _device_id(self) -> int | None:
        if not self.on_gpu:
            return None
        return torch.cuda.current_device() if self.device.index is None else self.device.index


class RunningGraph:
    """A pipeline at work. Batches come out in the order in which they were fed."""

    def __init__(self, pipeline: Pipeline, graph: Graph) -> None:
        self._pipeline: Pipeline | None = pipeline  # the only reference, so that close() ends its threads
        self._graph = graph

    def feed(self, feed: Feed) -> None:
        """Begin a batch; returns at once. Raises RuntimeError."""
        assert self._pipeline is not None
        for name in self._graph.input_names:
            self._pipeline.feed_input(name, getattr(feed, name))
        self._pipeline.schedule_run()

    def take(self) -> torch.Tensor:
        """uint8 [n, size_px, size_px, 3] of the oldest batch fed, on the device, in memory of its own.

        Returns when it is ready, on CUDA too: until then DALI may still read what it was fed with. Raises RuntimeError
        if any of its samples could not be decoded.
        """
        assert self._pipeline is not None
        (images,) = self._pipeline.share_outputs()
        tensor: torch.Tensor = torch.utils.dlpack.from_dlpack(images.as_tensor())  # keeps DALI's memory by itself
        self._pipeline.release_outputs()
        return tensor

    def close(self) -> None:
        """Wait for the batches under way and end all threads. Idempotent."""
        self._pipeline = None
