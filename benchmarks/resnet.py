"""Residual networks for small images (He et al.), as a user would write them; their training."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = {"resnet20": 3, "resnet32": 5, "resnet56": 9}
# Epochs that take less are not kept one by one.
LEAST_SECONDS = 5.0
LOG = logging.getLogger(__name__)


class BasicBlock(nn.Module):
    """Two convolutions and what goes past them; where channels double, zeros are added (option A).

    Args:
        inputs: channels that come in.
        outputs: channels that go out.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.added = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Float ``(rows, channels, height, width)`` to the same, or to half the size."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.added:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added, self.added))
        return F.relu(out + x)


class ResNet(nn.Module):
    """A ResNet for 32 x 32 pixels: three stages of 16, 32 and 64 channels (arXiv 1512.03385, 4.2).

    Args:
        blocks: in a stage: 3, 5 and 9 for 20, 32 and 56 layers.
        labels: number of labels.
        width: channels of the first stage.
        channels: of an image.
    """

    def __init__(self, blocks: int, labels: int, width: int = 16, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks)
        self.layer2 = _stage(width, 2 * width, blocks)
        self.layer3 = _stage(2 * width, 4 * width, blocks)
        self.linear = nn.Linear(4 * width, labels)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(rows, labels)`` of images ``(rows, channels, height, width)``."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


def _stage(inputs: int, outputs: int, blocks: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, outputs // inputs)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


@dataclass(frozen=True)
class ImageTraining:
    """How a network of images is trained: SGD, one cycle of learning rates, crops and flips.

    Args:
        cell: ``"resnet20"``, ``"resnet32"`` or ``"resnet56"``.
        epochs: passes over the training rows.
        learning_rate: the highest.
        batch_size: images of a step.
        least_steps: more epochs are run where there are so few rows that these steps need them.
        weight_decay: of all weights.
        smoothing: of the labels.
        begin: the data set whose trained weights it begins with, where shapes agree; ``None``
            begins from scratch.
        seed: of weights, order and crops.
        layers: the networks' own; nothing else is asked for.
    """

    cell: str = "resnet20"
    epochs: int = 15
    learning_rate: float = 0.2
    batch_size: int = 128
    least_steps: int = 600
    weight_decay: float = 5e-4
    smoothing: float = 0.05
    begin: str | None = None
    seed: int = 0
    layers: int = 1

    def key(self) -> dict[str, Any]:
        """What the cache knows these settings by."""
        return asdict(self)

    def scratch(self, least: int) -> ImageTraining:
        """The settings of a model that begins with nothing, whatever its parent did."""
        return replace(self, begin=None)


def train_resnet(
    images: Tensor,
    targets: Tensor,
    labels: int,
    prepare: Callable[[Tensor], Tensor],
    training: ImageTraining,
    begin: dict[str, Tensor] | None = None,
    state: Path | None = None,
    precision: torch.dtype = torch.bfloat16,
) -> dict[str, Tensor]:
    """The weights of a network after training, on the CPU.

    Steps run in bfloat16 with channels last, which is three times as fast where the processor has
    instructions for it; weights and their updates stay float32.

    Args:
        images: uint8 ``(rows, channels, height, width)``.
        targets: int64 ``(rows,)``.
        labels: number of labels.
        prepare: from uint8 images to what the network reads.
        training: the settings.
        begin: weights to begin with; those of another shape are left out.
        state: a file that keeps what is there after each epoch; an interrupted training goes on.
        precision: of steps.
    """
    torch.manual_seed(training.seed)
    network = ResNet(BLOCKS[training.cell], labels, channels=images.shape[1])
    network.to(memory_format=torch.channels_last)
    if begin:
        own = network.state_dict()
        network.load_state_dict(
            {k: v for k, v in begin.items() if v.shape == own[k].shape}, strict=False
        )
    per_epoch = max(1, len(images) // training.batch_size)
    epochs = max(training.epochs, -(-training.least_steps // per_epoch))
    optimizer = torch.optim.SGD(
        network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=training.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.learning_rate, epochs=epochs, steps_per_epoch=per_epoch, pct_start=0.25
    )
    parts = {"network": network, "optimizer": optimizer, "schedule": schedule}
    done = 0
    if state is not None and state.exists():
        kept = torch.load(state, weights_only=True)
        done = kept.pop("done")
        for name, part in parts.items():
            part.load_state_dict(kept[name])  # type: ignore[attr-defined]
    for epoch in range(done, epochs):
        started, total = time.perf_counter(), 0.0
        generator = torch.Generator().manual_seed(1000 * training.seed + epoch)
        network.train()
        for x, y in _augmented(images, targets, training.batch_size, generator):
            with torch.autocast("cpu", precision, enabled=precision != torch.float32):
                logits = network(prepare(x).contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits.float(), y, label_smoothing=training.smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        seconds = time.perf_counter() - started
        LOG.info("epoch %d/%d: loss %.3f, %.0f s", epoch + 1, epochs, total / per_epoch, seconds)
        if state is not None and epoch + 1 < epochs and seconds > LEAST_SECONDS:
            found = {name: part.state_dict() for name, part in parts.items()}  # type: ignore[attr-defined]
            torch.save({**found, "done": epoch + 1}, state.with_suffix(".part"))
            state.with_suffix(".part").replace(state)
    if state is not None:
        state.unlink(missing_ok=True)
    return {k: v.detach().contiguous().clone() for k, v in network.state_dict().items()}


def _augmented(
    images: Tensor, targets: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """All whole batches of one pass, in a random order, each cropped at one place and flipped."""
    order = torch.randperm(len(images), generator=generator)
    pad, side = images.shape[-1] // 8, images.shape[-1]
    for index in order.split(size)[: max(1, len(images) // size)]:
        x = F.pad(images[index], (pad, pad, pad, pad))
        # A place for each eighth of the batch: slicing is much faster than gathering a row each.
        parts = []
        for part in x.chunk(8):
            top, left = torch.randint(2 * pad + 1, (2,), generator=generator).tolist()
            parts.append(part[..., top : top + side, left : left + side])
        x = torch.cat(parts)
        flip = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(flip[:, None, None, None], x.flip(3), x)
        yield x, targets[index]


def resnet(cell: str, weights: dict[str, Tensor]) -> ResNet:
    """A trained network in evaluation mode."""
    labels = len(weights["linear.weight"])
    network = ResNet(BLOCKS[cell], labels, channels=weights["conv1.weight"].shape[1])
    known = network.state_dict()
    # Published weights don't count batches; nothing here reads that number.
    network.load_state_dict({**known, **{k: v for k, v in weights.items() if k in known}})
    return network.eval()
