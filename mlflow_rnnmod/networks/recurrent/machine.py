"""How fast this machine is at what composites do: measured once, and kept in a file."""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from mlflow_rnnmod._digest import digest_text
from mlflow_rnnmod._locks import Lock
from mlflow_rnnmod.inputs.rows import Rows
from mlflow_rnnmod.networks.many import on_threads
from mlflow_rnnmod.networks.recurrent.config import NetworkConfig
from mlflow_rnnmod.networks.recurrent.layers import RecurrentLayers
from mlflow_rnnmod.networks.recurrent.packed import PackedLstm, packing_works
from mlflow_rnnmod.networks.recurrent.stepwise import Stepwise
from mlflow_rnnmod.networks.trunk import Trunk

# How much of each thing that takes time there is to do.
Product = tuple[float, ...]

T = TypeVar("T")

_logger = logging.getLogger(__name__)
_VERSION = 4
_PRODUCTS = ("layer", "layer_one", "kernel", "kernel_one", "stepped")
_lock = Lock()
_current: Machine | None = None
_busy_until = 0.0
_INPUTS, _STEPS = 32, 8
# Rounds of measuring, at the least and at the most, and seconds after which no more is begun.
_ROUNDS, _LONG = (2, 7), 0.04
# How far time and processor time may differ on a machine that has nothing else to do; and after how
# many seconds a busy one is measured again.
_QUIET, _AGAIN = 1.25, 60.0
_TEN, _CALLS = range(10), 8


@dataclass(frozen=True)
class Machine:
    """Seconds that each thing takes.

    Args:
        layer: of PyTorch's recurrent layer, with all threads: a call, a step, a floating-point
            operation, a weight that is read.
        layer_one: the same with one thread.
        kernel: of one whose weights were packed, with all threads.
        kernel_one: the same with one thread.
        stepped: of stepping many states at once: a step, a floating-point operation, a gate, a
            weight of the guesses.
        handoff: of handing tasks to threads and waiting for them.
        alone: of a kernel's call on a thread, in which no other thread makes one: Python's share.
    """

    layer: Product
    layer_one: Product
    kernel: Product
    kernel_one: Product
    stepped: Product
    handoff: float
    alone: float

    def time(self, what: str, counts: Product) -> float:
        """Seconds for so much of each thing."""
        return sum(a * b for a, b in zip(getattr(self, what), counts, strict=True))

    @classmethod
    def measured(cls) -> Machine | None:
        """This one, measured now in about 0.2 seconds; None where it has other things to do."""
        product = torch.ones(192, 192)
        if not _alone(lambda: [product @ product for _ in range(128)])[1]:
            return None
        with torch.inference_mode(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [_kernel_case(*case, packs=False) for case in _KERNEL_CASES]
            kernels = [_kernel_case(*case, packs=True) for case in _KERNEL_CASES]
            stepped = [_stepped_case(*case) for case in _STEPPED_CASES]
            alone, quiet = _alone(lambda: _times(layers + kernels + stepped))
            if not quiet:
                return None
            together = _times(layers + kernels)
            handoff = min(_time(lambda: on_threads([int] * 2)) for _ in _TEN)
            both = min(_time(lambda: on_threads([lambda: _calls(kernels[0][1])] * 2)) for _ in _TEN)
        size = len(layers)
        counts = [found for found, _ in layers]
        return cls(
            layer=fit(counts, together[:size]),
            layer_one=fit(counts, alone[:size]),
            kernel=fit(counts, together[size:]),
            kernel_one=fit(counts, alone[size : 2 * size]),
            stepped=fit([found for found, _ in stepped], alone[2 * size :]),
            handoff=handoff,
            alone=max(both - handoff - _CALLS * alone[size], 0.0) / (2 * _CALLS),
        )


# Of the machine that this package was made on.
SHIPPED = Machine(
    layer=(8e-5, 1e-6, 5e-12, 3e-11),
    layer_one=(8e-5, 1e-6, 6.5e-12, 4e-11),
    kernel=(2.8e-5, 1e-6, 5e-12, 1e-11),
    kernel_one=(2.8e-5, 1e-6, 6.5e-12, 1e-11),
    stepped=(4.5e-5, 6.5e-12, 2e-10, 2e-10),
    handoff=5e-5,
    alone=2e-5,
)

# Units, rows and steps.
_KERNEL_CASES = (
    (48, 1, 4),
    (48, 1, 16),
    (160, 1, 8),
    (48, 32, 8),
    (128, 32, 8),
    (64, 256, 8),
    (128, 128, 4),
    (96, 128, 16),
)
# Units, trunks, rows, and whether removed units are guessed from others.
_STEPPED_CASES = (
    (48, 4, 1, False),
    (96, 32, 1, False),
    (64, 8, 32, False),
    (128, 4, 32, False),
    (96, 64, 1, True),
    (160, 4, 32, True),
    (96, 8, 64, True),
)


def current_machine() -> Machine:
    """This machine: from the cache, or measured when first asked for.

    What is measured while others use the machine says little of it, and is forgotten: the figures
    that the package comes with are used, and a minute later it is measured again.
    """
    global _current, _busy_until
    with _lock:
        if _current is None:
            _current = read_cached()
        if _current is None and time.monotonic() >= _busy_until:
            _current = Machine.measured()
            if _current is None:
                _busy_until = time.monotonic() + _AGAIN
            else:
                write_cached(_current)
        return _current or SHIPPED


def _alone(task: Callable[[], T]) -> tuple[T, bool]:
    """What ``task`` gives with one thread, and whether nothing else got in its way meanwhile."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        wall, used = time.perf_counter(), time.process_time()
        found = task()
        wall, used = time.perf_counter() - wall, time.process_time() - used
        return found, max(wall, used) < _QUIET * min(wall, used)
    finally:
        torch.set_num_threads(count)


def cache_file() -> Path | None:
    """Where the figures are kept: ``$RNNMOD_CACHE``, or ``~/.cache/rnnmod``; None for nowhere."""
    root = os.environ.get("RNNMOD_CACHE")
    if root == "":
        return None
    try:
        folder = Path(root) if root else Path.home() / ".cache" / "rnnmod"
    except RuntimeError:  # nobody's home, as in containers with a user that is a number only
        return None
    kind = [platform.machine(), platform.processor(), _cpu(), torch.__version__]
    key = digest_text(json.dumps([*kind, torch.get_num_threads(), _VERSION]))[:16]
    return folder / f"machine-{key}.json"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return ""


def read_cached() -> Machine | None:
    """The figures that :func:`write_cached` kept; None where there are none that can be used."""
    file = cache_file()
    try:
        if file is None:
            return None
        body = json.loads(file.read_text())
        products = {name: tuple(map(float, body[name])) for name in _PRODUCTS}
        if any(len(p) != 4 or min(p) < 0 for p in products.values()):
            return None
        return Machine(**products, handoff=float(body["handoff"]), alone=float(body["alone"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_cached(machine: Machine) -> None:
    """Keep the figures; a cache that can't be written is done without."""
    file = cache_file()
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(asdict(machine)))
        aside.replace(file)
    except OSError as error:
        _logger.debug("The machine's figures were not kept: %s", error)


def _time(task: Callable[[], object]) -> float:
    started = time.perf_counter()
    task()
    return time.perf_counter() - started


def _times(cases: Sequence[tuple[Product, Callable[[], object]]]) -> list[float]:
    """The shortest of a few runs of each; interleaved, as machines have moods."""
    for _, run in cases:
        run()
    rounds: list[list[float]] = []
    least, most = _ROUNDS
    started = time.perf_counter()
    while len(rounds) < least or (len(rounds) < most and time.perf_counter() < started + _LONG):
        rounds.append([_time(run) for _, run in cases])
    return [min(times) for times in zip(*rounds, strict=True)]


def _calls(run: Callable[[], object]) -> None:
    for _ in range(_CALLS):
        run()


def _kernel_case(
    units: int, rows: int, steps: int, packs: bool
) -> tuple[Product, Callable[[], Tensor]]:
    layer = nn.LSTM(_INPUTS, units).requires_grad_(False)
    x = torch.randn(steps, rows, _INPUTS)
    weights = 4 * units * (_INPUTS + units)
    counts = (1.0, steps, steps * rows * 2.0 * weights, steps * float(weights))
    if packs and packing_works():
        return counts, partial(PackedLstm(layer), x)
    return counts, lambda: layer(x)[0]


def _stepped_case(
    units: int, trunks: int, rows: int, mixed: bool
) -> tuple[Product, Callable[[], Tensor]]:
    config = NetworkConfig("features", _INPUTS, None, "lstm", ((units,),), ("a", "b"))
    keep = torch.ones(units, dtype=torch.bool)
    keep[: units // 4] = False
    name = "recurrent.0.fwd"
    mix = {name: torch.full((units, units), 0.01)} if mixed else {}
    trunk = Trunk({name: keep}, {}, mix)
    stepwise = Stepwise(RecurrentLayers(config).requires_grad_(False), [trunk] * trunks)
    inputs = Rows(torch.randn(rows, _STEPS, _INPUTS))
    states = float(_STEPS * trunks * rows)
    guesses = _STEPS * trunks * units * (units // 4) if mixed else 0
    counts = (_STEPS, states * 8 * units * units, states * 4 * units, float(guesses))
    return counts, lambda: stepwise.readout(inputs)


def fit(counts: Sequence[Product], times: Sequence[float]) -> Product:
    """Seconds for each thing, none below 0, so that the relative errors are small.

    Twice too little is as bad as twice too much: errors are weighed by what was fitted before, not
    by the times alone, which would favour too little.
    """
    x = torch.tensor(counts, dtype=torch.float64)
    y = torch.tensor(times, dtype=torch.float64)
    weights = 1 / y
    for _ in range(4):
        found = _not_negative(x * weights[:, None], y * weights)
        weights = 1 / (y * (x @ found).clamp(min=1e-9)).sqrt()
    return tuple(found.tolist())


def _not_negative(x: Tensor, y: Tensor) -> Tensor:
    """Least squares; what would be negative is left out, the worst first."""
    found = torch.zeros(x.shape[1], dtype=x.dtype)
    used = list(range(x.shape[1]))
    while used:
        size = x[:, used].norm(dim=0).clamp(min=1e-300)
        solution = torch.linalg.lstsq(x[:, used] / size, y[:, None]).solution[:, 0]
        if bool((solution >= 0).all()):
            found[used] = solution / size
            break
        del used[int(solution.argmin())]
    return found
