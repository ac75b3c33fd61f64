"""Pixels: an array of numbers ``(channels, height, width)`` an input, as the network reads it."""

from __future__ import annotations

import io
from typing import Any, ClassVar

import torch
from torch import Tensor

from mlflow_rnnmod.inputs.base import (
    ColumnType,
    Input,
    Reader,
    Size,
    check_finite,
    check_floats,
    numbers,
)
from mlflow_rnnmod.inputs.gaussian import ImageDensity
from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.rows import Rows

SHOWN = 64
"""Pictures in pages have at most so many pixels a side."""
PATCHES = 4
"""Made-up images are mixed of so many patches a side."""


class Pixels(Input):
    """Arrays ``(channels, height, width)`` of floats, prepared by whoever hands them over.

    Example:
        >>> Pixels().check([[[[0.5, 1.0]]]], (1, 1, 2))
        [tensor([[[0.5000, 1.0000]]], dtype=torch.float64)]
    """

    name = "pixels"
    column = "image"
    column_type: ClassVar[ColumnType] = ("array", ("array", ("array", "double")))
    tensor = True
    whole = True

    def read(self, value: Any, where: str, size: Size, expected: str | None = None) -> Any:
        """Float64 ``(channels, height, width)``: numbers keep their digits until they are read."""
        expected = expected or f"an array of shape {size} (channels, height, width)"
        if isinstance(value, bytes | bytearray | str):
            raise TypeError(
                f"{where} is the {type(value).__name__} {value!r:.40}; expected {expected}. Files "
                "of images are read where the parent was given its preparation (image=)."
            )
        found = numbers(unpacked(value), where, expected, torch.float64)
        if tuple(found.shape) != size:
            raise ValueError(f"{where} has shape {tuple(found.shape)}; expected {expected}.")
        check_finite(found, where)
        return found

    def check_rows(self, rows: Rows, size: Size) -> None:
        """Float ``(rows, channels, height, width)``."""
        words = f"(rows, channels, height, width) with {size}"
        check_floats(rows, shape_of(size), words)

    def of_batch(self, values: Tensor) -> Tensor | None:
        """Numbers ``(rows, channels, height, width)``, as floats."""
        if values.ndim != 4:
            return None
        return values if values.is_floating_point() else values.float()

    def rows(self, inputs: Any, network: Reader, tokenizer: Any = None) -> Rows:
        """Float ``(rows, channels, height, width)``, of the network's dtype, without lengths."""
        if not isinstance(inputs, Rows):
            inputs = Rows(torch.stack(list(inputs)).to(network.dtype))
        return network.prepare(inputs)

    def background(
        self, rows: Rows, config: Any, count: int, seed: int, unknown: int | None = None
    ) -> Rows:
        """As :meth:`Input.background`; each patch is taken from one of two images at random."""
        generator = torch.Generator().manual_seed(seed)
        first, second = (torch.randint(len(rows), (count,), generator=generator) for _ in range(2))
        height, width = rows.values.shape[2:]
        swap = torch.rand(count, 1, PATCHES, PATCHES, generator=generator) < 0.5
        down, across = (torch.arange(side) * PATCHES // side for side in (height, width))
        swap = swap[:, :, down][:, :, :, across]
        return Rows(torch.where(swap, rows.values[second], rows.values[first]))

    def density(self, config: Any, tokenizer: Any = None) -> Density | None:
        """A Gaussian over the lowest frequencies."""
        return ImageDensity(*config.input_size)

    def common_size(self, parents: int) -> str | None:
        """Whatever the parents."""
        return "size of images"

    def words(self, size: Size, steps: int | None = None) -> str:
        """As :meth:`Input.words`."""
        return f"arrays of {shape_words(size)}, prepared as the network reads them"

    def example(self, size: Size) -> str:
        """A list with one made-up input, as Python."""
        _, height, width = shape_of(size)
        return f"[[[[0.5] * {width}] * {height}] * {shape_of(size)[0]}]"

    def made_up(self, size: Size) -> Any:
        """One array, as lists."""
        return torch.full(shape_of(size), 0.5).tolist()

    def table(self, size: Size) -> str:
        """One array of all inputs."""
        return f'np.full({(1, *shape_of(size))}, 0.5, dtype="float32")'

    def picture(self, values: Tensor, tokenizer: Any = None) -> bytes | None:
        """The row as a PNG, from its darkest to its brightest number."""
        low, high = float(values.min()), float(values.max())
        scaled = (values.cpu().float() - low) * (255 / max(high - low, 1e-9))
        return png_of(scaled.round().to(torch.uint8), SHOWN)


def png_of(pixels: Tensor, most: int | None = None) -> bytes | None:
    """Uint8 ``(channels, height, width)`` as a PNG; ``None`` where it has no colours to show.

    ``most``: pixels a side that larger ones are scaled down to.

    Example:
        >>> png_of(torch.zeros(3, 2, 2, dtype=torch.uint8))[1:4]
        b'PNG'
    """
    from PIL import Image

    if len(pixels) not in (1, 3):
        return None
    array = pixels.permute(1, 2, 0).contiguous().numpy()
    file = io.BytesIO()
    image = Image.fromarray(array[..., 0] if len(pixels) == 1 else array)
    if most is not None:
        image.thumbnail((most, most))
    image.save(file, "PNG")
    return file.getvalue()


def shape_of(size: Size) -> tuple[int, int, int]:
    """Channels, height and width."""
    assert isinstance(size, tuple) and len(size) == 3, size
    return size[0], size[1], size[2]


def shape_words(size: Size) -> str:
    """Channels and size, in words.

    Example:
        >>> shape_words((3, 32, 32)), shape_words((1, 0, 0))
        ('3 channels, 32 x 32', '1 channel, any size')
    """
    channels, height, width = shape_of(size)
    many = "channel" if channels == 1 else "channels"
    return f"{channels} {many}, " + (f"{height} x {width}" if height else "any size")


def unpacked(value: Any) -> Any:
    """Arrays in arrays, as pandas and Spark hand them over, as lists."""
    if str(getattr(value, "dtype", "")) == "object":
        value = list(value)
    if isinstance(value, list | tuple) and any(hasattr(item, "tolist") for item in value):
        return [unpacked(item) if hasattr(item, "tolist") else item for item in value]
    return value
