"""Dense networks as users write them: 6 features (or 1 x 2 x 3 pixels) in, 3 labels out."""

from __future__ import annotations

from types import SimpleNamespace

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEATURES, LABELS = 6, ("a", "b", "c")


def sequential() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(x))
        x = torch.relu(self.fc2(x))
        return self.fc3(x)


class Lit(pl.LightningModule):
    def __init__(self, hidden: int = 8, dropout: float = 0.3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer_1 = nn.Linear(6, self.hparams.hidden)
        self.layer_2 = nn.Linear(hidden, 3)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        batch_size = x.shape[0]
        assert x.ndim == 2
        hidden = F.dropout(self.layer_1(x).tanh(), self.hparams.dropout, self.training)
        self.log("mean", hidden.mean())
        self.last = hidden
        self.seen.append(hidden)
        if self._trainer is not None and self.trainer.sanity_checking:
            hidden = hidden + 0
        return F.log_softmax(self.layer_2(hidden).view(batch_size, -1), dim=1)


class Loop(nn.Module):
    def __init__(self, sizes: tuple[int, ...] = (6, 9, 8, 7)) -> None:
        super().__init__()
        pairs = zip(sizes, sizes[1:], strict=False)
        self.layers = nn.ModuleList([nn.Linear(a, b, bias=b != 8) for a, b in pairs])
        self.acts = nn.ModuleDict({"0": nn.GELU(), "1": nn.ELU(0.7), "2": nn.LeakyReLU(0.2)})
        self.head = nn.Linear(sizes[-1], 3)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        for index, layer in enumerate(self.layers):
            x = self.acts[str(index)](layer(x))
        return {"logits": self.head(x), "hidden": x}


def norm_before() -> nn.Module:
    return nn.Sequential(
        nn.BatchNorm1d(6),
        nn.Linear(6, 8, bias=False),
        nn.BatchNorm1d(8),
        nn.ReLU(inplace=True),
        nn.Dropout(0.5),
        nn.Linear(8, 3),
    )


def norm_after() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.Sigmoid(),
        nn.BatchNorm1d(8, affine=False),
        nn.Linear(8, 7),
        nn.SiLU(),
        nn.Dropout(),
        nn.BatchNorm1d(7),
        nn.Linear(7, 3),
        nn.BatchNorm1d(3),
    )


class Image(nn.Module):
    """Flattens 1 x 2 x 3 pixels of 0 to 255 first, and scales them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(0.13))
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.Softplus(beta=2), nn.Identity())
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.dim() == 3:
            x = x.unsqueeze(1)
        x = (x / 255 - self.mean) / 0.3
        h = self.net(x)
        return self.out(h).softmax(-1), h


class Viewed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> SimpleNamespace:
        h = x.view(x.size(0), -1).contiguous()
        h = F.relu_(self.fc1(h))
        return SimpleNamespace(logits=self.fc2(h))


class Single(nn.Module):
    """One output for two labels."""

    def __init__(self, sigmoid: bool = False, squeeze: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.out = nn.Linear(8, 1)
        self.sigmoid, self.squeeze = sigmoid, squeeze

    def forward(self, x: Tensor) -> Tensor:
        z = self.out(self.body(x))
        z = z.squeeze() if self.squeeze else z
        return torch.sigmoid(z) if self.sigmoid else z


class Residual(nn.Module):
    def __init__(self, inner_norm: bool = True) -> None:
        super().__init__()
        self.start = nn.Linear(6, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 8)) for _ in range(2)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(8) for _ in range(2))
        self.out = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x).relu()
        for block, norm in zip(self.blocks, self.norms, strict=True):
            h = h + norm(torch.tanh(block(h)))
            h += 0.5
        return self.out(h)


class Two(nn.Module):
    """Two branches added up before the activation, two side by side behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.far = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 4)
        self.norm, self.all, self.out = nn.BatchNorm1d(12), nn.Linear(12, 5), nn.Linear(17, 3)

    def forward(self, x: Tensor) -> Tensor:
        near = torch.relu(self.left(x) - self.right(x) * 0.5)
        both = self.norm(torch.cat([near, F.elu(self.far(x))], dim=1))
        return self.out(torch.cat((both, torch.sigmoid(self.all(both))), -1))


class MyLinear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias) * 2


class ByHand(nn.Module):
    """Weights of its own, tied ones and an unused layer."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(6, 8) * 0.4)
        self.b = nn.Parameter(torch.randn(8) * 0.1)
        self.same = MyLinear(8, 8)
        self.out, self.auxiliary = nn.Linear(8, 3), nn.Conv1d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(x @ self.w + self.b)
        h = torch.tanh(self.same(h))
        h = torch.tanh(self.same(h))
        h = torch.sigmoid(torch.addmm(self.b, h, self.same.weight.t()))
        return self.out(h) / 0.7


def parametrized() -> nn.Module:
    net = sequential()
    torch.nn.utils.parametrizations.weight_norm(net[0])
    return net


NETWORKS = {
    "sequential": sequential,
    "functional": Functional,
    "lightning": Lit,
    "loop": Loop,
    "norm_before": norm_before,
    "norm_after": norm_after,
    "image": Image,
    "viewed": Viewed,
    "residual": Residual,
    "two": Two,
    "by_hand": ByHand,
    "parametrized": parametrized,
}
