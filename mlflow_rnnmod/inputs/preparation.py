"""What a parent's images went through before it read them, as data beside its weights."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from mlflow_rnnmod._digest import canonical_json, digest_text
from mlflow_rnnmod._locks import cached_property
from mlflow_rnnmod.inputs.rows import Rows

RESIZES = ("nearest", "bilinear", "bicubic")
MAX_SIDE = 16_384


@dataclass(frozen=True)
class ImagePreparation:
    """How images become what a network reads: ``(pixels * scale - mean) / std``, after resizing.

    It is stored beside the parent's weights, as a tokenizer is, with a digest of its own.

    Args:
        size: height and width that the network reads, or one number for both; ``None``: those of
            the network, where it is known.
        channels: 3 for colour (RGB), 1 for shades of grey; ``None``: as many as ``mean`` or ``std``
            have, else the network's.
        mean: taken off each channel; one number for all of them, or one each.
        std: what each channel is divided by, likewise.
        scale: what pixels from 0 to 255 are multiplied by first.
        resize: how images of another size are brought to ``size``, with Pillow's filter
            ``"nearest"``, ``"bilinear"`` or ``"bicubic"``; ``None`` refuses them.

    Raises:
        ValueError: naming everything that does not fit.

    Example:
        >>> prepare = ImagePreparation(size=2, mean=0.5, std=0.25, channels=1)
        >>> prepare(torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8)).values.tolist()
        [[[[-2.0, 2.0], [2.0, -2.0]]]]
    """

    reads: ClassVar[str] = "images"
    """Name of the input that goes in."""

    size: int | tuple[int, int] | None = None
    channels: int | None = None
    mean: float | tuple[float, ...] = 0.0
    std: float | tuple[float, ...] = 1.0
    scale: float = 1 / 255
    resize: str | None = None

    def __post_init__(self) -> None:
        problems: list[str] = []
        if isinstance(self.size, int) and not isinstance(self.size, bool):
            object.__setattr__(self, "size", (self.size, self.size))
        elif isinstance(self.size, Sequence) and not isinstance(self.size, str):
            object.__setattr__(self, "size", tuple(self.size))
        sides = self.size if isinstance(self.size, tuple) else ()
        whole = all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides)
        if self.size is not None and (len(sides) != 2 or not whole):
            problems.append(
                f"size={self.size!r:.100}, expected (height, width) or one number, 1 to {MAX_SIDE}"
            )
        counts = set()
        for name in ("mean", "std"):
            value = getattr(self, name)
            found = _numbers(value)
            if found is None or (name == "std" and min(found) <= 0):
                more = " above 0" if name == "std" else ""
                problems.append(f"{name}={value!r:.100}, expected a number{more} for each channel")
                continue
            object.__setattr__(self, name, found)
            counts |= {len(found)} - {1}
        if self.channels is None and len(counts) == 1:
            object.__setattr__(self, "channels", counts.pop())
        if self.channels not in (None, 1, 3):
            problems.append(f"channels={self.channels!r:.60}, expected 3 (colour) or 1 (grey)")
        elif self.channels is not None and counts - {self.channels}:
            problems.append(
                f"mean and std have {sorted(counts)} numbers, expected one or {self.channels}"
            )
        if _numbers(self.scale) is None or isinstance(self.scale, Sequence) or self.scale <= 0:
            problems.append(f"scale={self.scale!r:.60}, expected a number above 0")
        else:
            object.__setattr__(self, "scale", float(self.scale))
        if self.resize is not None and self.resize not in RESIZES:
            problems.append(f"resize={self.resize!r:.60}, expected None or one of {RESIZES}")
        if problems:
            raise ValueError("The preparation of images does not fit: " + "; ".join(problems) + ".")

    @classmethod
    def of(cls, given: Any) -> ImagePreparation:
        """A preparation as users say it.

        Args:
            given: an :class:`ImagePreparation`, a mapping of its arguments, its JSON, or transforms
                of torchvision (see :meth:`from_transforms`).

        Raises:
            TypeError: if an argument is unknown.
            ValueError: if one does not fit, or a transform is not covered.

        Example:
            >>> ImagePreparation.of({"size": 8, "channels": 1}).size
            (8, 8)
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            return cls.from_json(given)
        return cls(**given) if isinstance(given, Mapping) else cls.from_transforms(given)

    @classmethod
    def from_transforms(cls, transforms: Any) -> ImagePreparation:
        """The preparation that plain transforms of torchvision are.

        Args:
            transforms: a ``Compose`` or a list of ``Resize``, ``ToTensor`` (or ``ToImage`` or
                ``PILToTensor`` with ``ToDtype(float32, scale=True)`` or ``ConvertImageDtype``) and
                ``Normalize``, in this order. They are known by the names of their classes, so
                torchvision need not be there. Random ones belong to training: give those that
                validation images go through.

        Raises:
            ValueError: naming a transform that is not covered.
        """
        steps = getattr(transforms, "transforms", transforms)
        if not isinstance(steps, Sequence | torch.nn.ModuleList) or isinstance(steps, str):
            steps = [transforms]
        found: dict[str, Any] = {"scale": 1.0}
        last = -1
        for step in steps:
            name = type(step).__name__
            if name not in _TRANSFORMS:
                raise ValueError(
                    f"{step!r:.200} is none of the transforms that are read "
                    f"({', '.join(_TRANSFORMS)}); expected those that validation images go "
                    "through, or ImagePreparation(...)."
                )
            order, read = _TRANSFORMS[name]
            if order < last:
                raise ValueError(
                    f"{name} comes late in {transforms!r:.200}; expected Resize, ToTensor, "
                    "Normalize in this order."
                )
            last = order
            found |= read(step)
        return cls(**found)

    @classmethod
    def from_json(cls, text: str) -> ImagePreparation:
        """The preparation that :attr:`json` says.

        Raises:
            ValueError: if it says none.
        """
        try:
            data = json.loads(text)
            given: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in data.items()
            }
            return cls(**given)
        except (TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{text[:100]!r} is not a preparation of images: {error}.") from error

    @property
    def json(self) -> str:
        """Its canonical JSON."""
        return canonical_json(asdict(self))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its canonical JSON."""
        return digest_text(self.json)

    def fitted(self, shape: int | Sequence[int]) -> ImagePreparation:
        """The same for a network that reads ``(channels, height, width)``; what was open is set.

        Args:
            shape: what the network reads; a number for one that reads vectors of so many, which
                images are flattened to: square ones where nothing else is said.

        Raises:
            ValueError: if it makes another shape.
        """
        if isinstance(shape, int):
            shape = self._shape_of(shape)
        channels, *rest = shape
        size: Any = self.size or tuple(rest)
        found = replace(self, size=size, channels=self.channels or channels)
        made = (found.channels, *found.sides)
        if made != tuple(shape):
            raise ValueError(
                f"image= makes {made} (channels, height, width) of an image, and the model reads "
                f"{tuple(shape)}; expected the preparation that its images went through."
            )
        return found

    def _shape_of(self, numbers: int) -> tuple[int, int, int]:
        """Channels, height and width of images that are vectors of so many numbers."""
        channels = self.channels or (3 if math.isqrt(numbers // 3) ** 2 * 3 == numbers else 1)
        height, width = self.size if isinstance(self.size, tuple) else (0, 0)
        if self.size is None:
            height = width = math.isqrt(numbers // channels)
        if channels * height * width != numbers:
            made = f"{channels} x {height} x {width}" if self.size else f"{channels} channels"
            raise ValueError(
                f"image= makes {made} of an image, and the model reads {numbers} numbers; expected "
                "as many, with size=(height, width)."
            )
        return channels, height, width

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width that come out."""
        assert isinstance(self.size, tuple), "not yet fitted to a network"
        return self.size

    @property
    def accepted(self) -> tuple[int, int, int]:
        """Channels, height and width of images that go in; 0 for any."""
        assert self.channels is not None, "not yet fitted to a network"
        return (self.channels, *((0, 0) if self.resize else self.sides))

    def __call__(self, images: Any) -> Rows:
        """Checked images as rows.

        ``images``: uint8 ``(channels, height, width)`` each; gives float32 ``(rows, channels,
        height, width)``.
        """
        return Rows(self.scaled(torch.stack([self.resized(image) for image in images])))

    def scaled(self, pixels: Tensor) -> Tensor:
        """Uint8 pixels ``(rows, channels, height, width)`` as float32 that the network reads."""
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.mean, self.std))
        return (pixels.float() * self.scale - mean) / std

    def pixels(self, values: Tensor) -> Tensor:
        """What the network reads as uint8 pixels again, to be looked at."""
        mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (self.mean, self.std))
        found = (values.cpu().float() * std + mean) / self.scale
        return found.round().clamp(0, 255).to(torch.uint8)

    def resized(self, image: Tensor) -> Tensor:
        """One uint8 image in the size that the network reads."""
        if image.shape[1:] == self.sides or self.resize is None:
            return image
        from PIL import Image

        array = image.permute(1, 2, 0).squeeze(2).numpy()
        how = Image.Resampling[self.resize.upper()]
        small = Image.fromarray(array).resize(self.sides[::-1], how)
        raw = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
        return raw.view(*self.sides, len(image)).permute(2, 0, 1)


def _numbers(value: Any) -> tuple[float, ...] | None:
    """One number or some as a tuple of floats; ``None`` where they are none, or not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    good = all(type(x) in (int, float) and math.isfinite(x) for x in items)
    return tuple(float(x) for x in items) if good and 1 <= len(items) <= 3 else None


def _resize(step: Any) -> dict[str, Any]:
    size = step.size
    how = str(getattr(step.interpolation, "value", step.interpolation))
    if not isinstance(size, Sequence) or len(size) != 2 or how not in RESIZES:
        raise ValueError(
            f"{step!r:.200}: expected Resize((height, width)), with one of {RESIZES}. One number "
            "keeps proportions, so that images of others would come out in another shape."
        )
    return {"size": tuple(size), "resize": how}


def _to_dtype(step: Any) -> dict[str, Any]:
    if not getattr(step, "scale", True) or step.dtype != torch.float32:
        raise ValueError(f"{step!r:.200}: expected torch.float32, with scale=True.")
    return {"scale": 1 / 255}


def _normalize(step: Any) -> dict[str, Any]:
    return {"mean": tuple(step.mean), "std": tuple(step.std)}


_TRANSFORMS: dict[str, tuple[int, Callable[[Any], dict[str, Any]]]] = {
    "Resize": (0, _resize),
    "ToImage": (1, lambda _: {}),
    "PILToTensor": (1, lambda _: {}),
    "ToTensor": (2, lambda _: {"scale": 1 / 255}),
    "ToDtype": (2, _to_dtype),
    "ConvertImageDtype": (2, _to_dtype),
    "Normalize": (3, _normalize),
}
"""Place of each transform in the order, and what it says."""
