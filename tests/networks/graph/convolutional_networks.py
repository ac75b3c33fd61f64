"""Convolutional networks as people write them: they read images of 3 x 8 x 8."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding="same", bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(32, 10),
        nn.ReLU(),
        nn.Linear(10, 4),
    )


def norm_first() -> nn.Module:
    """A norm in front of a border of zeros can't be folded; in front of no border it can."""
    return nn.Sequential(
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 5, 3, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(5),
        nn.Conv2d(5, 6, 3),
        nn.ELU(),
        nn.BatchNorm2d(6),
        nn.AvgPool2d(3, stride=2, padding=1),
        nn.Conv2d(6, 7, 2, padding=1, padding_mode="reflect"),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.BatchNorm1d(7),
        nn.Linear(7, 4),
    )


class Block(nn.Module):
    def __init__(self, read: int, units: int, stride: int, projected: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(read, units, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(units)
        self.conv2 = nn.Conv2d(units, units, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(units)
        self.more = units - read
        self.shortcut = nn.Sequential()
        if projected and self.more:
            self.shortcut = nn.Sequential(
                nn.Conv2d(read, units, 1, stride, bias=False), nn.BatchNorm2d(units)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.more and len(self.shortcut) == 0:
            half = self.more // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half), "constant", 0)
        out += self.shortcut(x)
        return F.relu(out)


class ResNet(nn.Module):
    """He et al.'s CIFAR networks, option A or B."""

    def __init__(self, projected: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.layer1 = nn.Sequential(Block(4, 4, 1, projected), Block(4, 4, 1, projected))
        self.layer2 = nn.Sequential(Block(4, 8, 2, projected), Block(8, 8, 1, projected))
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer2(self.layer1(out))
        out = F.avg_pool2d(out, out.size()[3])
        out = out.view(out.size(0), -1)
        return self.linear(out)


class Separable(nn.Module):
    """Depthwise convolutions, a squeeze and excitation, a global mean, as in MobileNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.depth = nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.squeeze, self.excite = nn.Conv2d(12, 3, 1), nn.Conv2d(3, 12, 1)
        self.point = nn.Conv2d(12, 8, 1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.norm(self.depth(F.relu6(self.stem(x)))))
        scale = F.adaptive_avg_pool2d(x, 1)
        scale = torch.sigmoid(self.excite(F.silu(self.squeeze(scale))))
        x = F.mish(self.point(x * scale))
        x = F.relu(self.grouped(x)).mean([2, 3])
        return self.out(x)


class Normed(nn.Module):
    """Group, instance and layer norms; the last one over channels that come last."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.gn = nn.Conv2d(3, 6, 3), nn.GroupNorm(3, 6)
        self.conv2, self.inorm = nn.Conv2d(6, 5, 3, padding=1), nn.InstanceNorm2d(5, affine=True)
        self.conv3, self.ln = nn.Conv2d(5, 4, 2), nn.LayerNorm(4)
        self.whole, self.out = nn.LayerNorm([4, 5, 5]), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.gn(self.conv1(x)))
        x = F.leaky_relu(self.inorm(self.conv2(x)), 0.1)
        x = self.conv3(x).permute(0, 2, 3, 1)
        x = self.ln(x).permute(0, 3, 1, 2)
        return self.out(torch.amax(F.softplus(self.whole(x)), dim=(-2, -1)))


class Inception(nn.Module):
    """Branches side by side, halves of channels, a dense layer at each place."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.three = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 3, padding=1)
        self.pooled = nn.Conv2d(3, 2, 1)
        self.mix, self.out = nn.Linear(6, 5), nn.Linear(10, 4)
        self.norm = nn.BatchNorm2d(12)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, 3, stride=1, padding=1)
        x = torch.cat([self.one(x), self.three(x), self.pooled(pooled)], 1)
        x = torch.relu(self.norm(x))
        first, second = x.chunk(2, dim=1)
        x = first + second * 0.5
        x = self.mix(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = torch.relu(x)
        return self.out(torch.cat([x.mean((2, 3)), x.flatten(2).max(2)[0]], dim=1))


class Sliding(nn.Module):
    """One-dimensional convolutions over rows of pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(24, 6, 3, padding=2, dilation=2), nn.Conv1d(6, 5, 3)
        self.norm, self.out = nn.BatchNorm1d(5), nn.Linear(15, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1, 2)
        x = F.max_pool1d(F.relu(self.conv1(x)), 2, ceil_mode=True)
        x = F.pad(x, (1, 2), mode="replicate")
        x = torch.tanh(self.norm(self.conv2(x)))
        return self.out(F.adaptive_avg_pool1d(x, 3).reshape(x.shape[0], 15))


class Scaled(nn.Module):
    """Pixels that the network scales itself; constants for channels, and for places."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(1, 3, 1, 1))
        self.register_buffer("map", torch.randn(1, 5, 8, 8))
        self.conv, self.again = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.out = nn.Linear(5 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / 2.0
        x = F.relu(self.conv(x) * self.map)
        x = F.relu(self.again(F.relu(self.again(x))) + x)
        return self.out(F.avg_pool2d(x, 2).reshape(-1, 80)).log_softmax(-1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "norm_first": norm_first,
    "option_a": lambda: ResNet(projected=False),
    "option_b": lambda: ResNet(projected=True),
    "separable": Separable,
    "normed": Normed,
    "inception": Inception,
    "sliding": Sliding,
    "scaled": Scaled,
}
