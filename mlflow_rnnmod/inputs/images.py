"""Images: files of PNG or JPEG, or uint8 arrays, through the parent's own preparation."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlflow_rnnmod.inputs.base import Reader, Size, listed
from mlflow_rnnmod.inputs.gaussian import ImageDensity
from mlflow_rnnmod.inputs.likelihood import Density
from mlflow_rnnmod.inputs.pixels import SHOWN, Pixels, png_of, shape_of, shape_words, unpacked
from mlflow_rnnmod.inputs.rows import Rows

FORMATS = ("PNG", "JPEG")
STARTS = (b"\x89PNG", b"\xff\xd8")
MAX_PIXELS = 2**25
"""No file of more pixels is decoded; what its header says is enough to refuse it."""
MODES = {1: ("1", "L"), 3: ("RGB",)}
"""Pillow's names for images of so many channels; alpha that hides nothing is left out first."""
COLOURS = {1: "shades of grey", 3: "colours (RGB)"}


class Images(Pixels):
    """Images, of which the parent's preparation makes what its network reads.

    A file's bytes (PNG or JPEG), the same as base64 text, an array or tensor of uint8
    ``(channels, height, width)``, or an image of Pillow. Nothing is turned by what a camera noted.

    Example:
        >>> Images().check([torch.zeros(1, 2, 2, dtype=torch.uint8)], (1, 2, 2))[0].shape
        torch.Size([1, 2, 2])
    """

    name = "images"
    column = "image"
    column_type = "binary"
    tensor = False

    def check(self, inputs: Any, size: Size) -> Any:
        """Each image as uint8 ``(channels, height, width)``."""
        if isinstance(inputs, Rows):
            raise TypeError("inputs are Rows; expected images: their preparation stands before.")
        return [self.read(item, f"inputs[{i}]", size) for i, item in listed(inputs, self.name)]

    def read(self, value: Any, where: str, size: Size, expected: str | None = None) -> Tensor:
        """Uint8 ``(channels, height, width)``."""
        channels, height, width = shape_of(size)
        image = self._array(value, where, channels)
        if height and tuple(image.shape[1:]) != (height, width):
            raise ValueError(
                f"{where} is an image of {image.shape[1]} x {image.shape[2]} (height x width); "
                f"expected {height} x {width}: this model's preparation resizes nothing."
            )
        return image

    def read_cell(self, cell: Any, row: int, size: Size) -> list[Any]:
        """One image, or a list of files."""
        if isinstance(cell, list | tuple) and any(isinstance(x, bytes | str) for x in cell):
            return [self.read(item, f"{self.column} in row {row}", size) for item in cell]
        return super().read_cell(cell, row, size)

    def of_batch(self, values: Tensor) -> None:
        """Batches hold what the preparation made."""

    def rows(self, inputs: Any, network: Reader, tokenizer: Any = None) -> Rows:
        """As the preparation makes them, of the network's dtype."""
        rows = inputs if isinstance(inputs, Rows) else tokenizer(inputs)
        return network.prepare(Rows(rows.values.to(network.dtype), None, rows.targets))

    def density(self, config: Any, tokenizer: Any = None) -> Density | None:
        """The same, of images as they were before their preparation."""
        return ImageDensity(tokenizer.channels, *tokenizer.sides)

    def joint_size(self, sizes: Any) -> Size:
        """Fixed where one of them is: the others resize. Channels are the first one's."""
        fixed = [size for size in sizes if size[1]]
        return (sizes[0][0], *(fixed or sizes)[0][1:])

    def settled(self, size: Any, joint: Any) -> Any:
        """What resizes is as large as the others."""
        return size if size[1] else (size[0], *joint[1:])

    def words(self, size: Size, steps: int | None = None) -> str:
        """As :meth:`Input.words`."""
        return f"images (PNG or JPEG), {shape_words(size)}"

    def example(self, size: Size) -> str:
        """A list with one made-up input, as Python."""
        return '[open("image.png", "rb").read()]'

    def made_up(self, size: Size) -> str:
        """A grey image's file, as base64; where the preparation resizes, of any size."""
        channels, height, width = shape_of(size)
        grey = torch.full((channels, height or 8, width or 8), 128, dtype=torch.uint8)
        return base64.b64encode(png_of(grey) or b"").decode()

    def table(self, size: Size) -> str:
        """A column of files' bytes."""
        return f'pd.DataFrame({{"{self.column}": {self.example(size)}}})'

    def parsed(self, line: str) -> Any:
        """The path of a file; else base64."""
        try:
            with open(line.strip(), "rb") as file:
                return file.read()
        except OSError as error:
            if _from_base64(line.strip()) is None:
                raise ValueError(f"{line[:100]!r} is no file that can be read: {error}") from error
            return line.strip()

    def picture(self, values: Tensor, tokenizer: Any = None) -> bytes | None:
        """The row as it was before its preparation, as a PNG."""
        if tokenizer is None:
            return super().picture(values)
        size = (tokenizer.channels, *tokenizer.sides)  # vectors may have been made of it
        return png_of(tokenizer.pixels(values.view(1, *size))[0], SHOWN)

    def _array(self, value: Any, where: str, channels: int) -> Tensor:
        expected = f"a PNG's or JPEG's bytes, or uint8 ({channels}, height, width)"
        if isinstance(value, str):
            found = _from_base64(value)
            if found is None:
                raise ValueError(f"{where} is the text {value!r:.40}; expected base64, {expected}.")
            value = found
        if isinstance(value, bytes | bytearray | memoryview):
            data = bytes(value)
            # MLflow leaves some forms of JSON as they are: base64, as bytes.
            if not data.startswith(STARTS):
                data = _from_base64(data) or data
            return _decoded(data, where, channels)
        if hasattr(value, "getbands"):
            return _converted(value, where, channels)
        if isinstance(value, Tensor):
            array = value
        elif isinstance(value, np.ndarray | list | tuple) and len(value):
            array = _tensor(unpacked(value), where, expected)
        else:
            raise TypeError(f"{where} is {value!r:.40}; expected {expected}.")
        return _checked(array, where, channels, expected)


def _from_base64(text: str | bytes) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _decoded(data: bytes, where: str, channels: int) -> Tensor:
    """A file's pixels. What it takes is bounded by its header before anything is decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError(
                    f"{where} is an image of {image.width} x {image.height} pixels; expected at "
                    f"most {MAX_PIXELS}."
                )
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ValueError(f"{where} holds {frames} images; expected one.")
            image.load()
            return _converted(image, where, channels)
    except Image.UnidentifiedImageError as error:
        raise ValueError(
            f"{where} is {len(data)} bytes that start with {data[:8]!r}; expected a whole PNG or "
            "JPEG."
        ) from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{where}: {error} Expected at most {MAX_PIXELS} pixels.") from error
    except (OSError, SyntaxError, EOFError) as error:
        raise ValueError(f"{where} is a broken image: {error}.") from error


def _converted(image: Any, where: str, channels: int) -> Tensor:
    """Pixels of an image of Pillow, as uint8 ``(channels, height, width)``."""
    mode = image.mode
    if mode in ("P", "PA") or "A" in mode or "transparency" in image.info:
        full = image.convert("LA" if mode == "LA" else "RGBA")
        if full.getchannel("A").getextrema()[0] < 255:
            raise ValueError(f"{where} is partly transparent; expected an image without gaps.")
        image = full.convert("L" if mode in ("LA", "L") else "RGB")
    if image.mode not in MODES.get(channels, ()):
        raise ValueError(
            f"{where} is an image of Pillow's mode {mode!r}; expected one in "
            f"{COLOURS.get(channels, f'{channels} channels')}, 8 bits each. Convert it as the "
            "parent's own images were."
        )
    array = np.asarray(image.convert(MODES[channels][-1]))
    found = torch.from_numpy(array.copy())
    return found[None] if found.ndim == 2 else found.permute(2, 0, 1)


def _tensor(value: Any, where: str, expected: str) -> Tensor:
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    try:
        found = torch.tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"{where} is {value!r:.40}; expected {expected}.") from error
    # Lists, as JSON has them, have no type of their own.
    whole = not found.is_floating_point() and found.numel()
    if whole and 0 <= int(found.min()) <= int(found.max()) <= 255:
        return found.to(torch.uint8)
    return found


def _checked(array: Tensor, where: str, channels: int, expected: str) -> Tensor:
    shown = f"{str(array.dtype).removeprefix('torch.')} of shape {tuple(array.shape)}"
    if array.dtype != torch.uint8:
        raise TypeError(
            f"{where} is {shown}; expected {expected}: the preparation that is stored with the "
            "model does what else has to be done."
        )
    if array.ndim == 2 and channels == 1:
        array = array[None]
    if array.ndim != 3 or len(array) != channels or not array.numel():
        last = array.ndim == 3 and array.shape[2] == channels
        more = " Channels come first: permute(2, 0, 1)." if last else ""
        raise ValueError(f"{where} is {shown}; expected {expected}.{more}")
    if array.shape[1] * array.shape[2] > MAX_PIXELS:
        raise ValueError(f"{where} is {shown}; expected at most {MAX_PIXELS} pixels.")
    return array
