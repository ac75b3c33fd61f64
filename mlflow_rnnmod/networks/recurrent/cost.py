"""What running trunks in each way should cost: counted from their sizes, in seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from mlflow_rnnmod.networks.many import threads as threads_here
from mlflow_rnnmod.networks.protocol import Load
from mlflow_rnnmod.networks.recurrent.config import DIRECTIONS, GATES, NetworkConfig
from mlflow_rnnmod.networks.recurrent.packed import packable
from mlflow_rnnmod.networks.trunk import Trunk

# How much of each thing that takes time there is to do.
Product = tuple[float, ...]


@dataclass(frozen=True)
class Machine:
    """Seconds that each thing takes.

    Args:
        layer: of PyTorch's recurrent layer, with all threads: a call with what surrounds it, a
            step, a floating-point operation, a weight that is read.
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


# Of a common one; what a machine really takes is seen when it runs.
COMMON = Machine(
    layer=(1.5e-4, 5e-6, 7e-12, 3e-11),
    layer_one=(1.5e-4, 5e-6, 1.1e-11, 3e-11),
    kernel=(1e-4, 1e-6, 7e-12, 3e-11),
    kernel_one=(1e-4, 1e-6, 1.1e-11, 3e-11),
    stepped=(6e-5, 1.1e-11, 1.6e-9, 5e-10),
    handoff=5e-5,
    alone=6e-5,
)


@dataclass(frozen=True)
class Work:
    """A batch for some trunks of one parent.

    Args:
        trunks: how many, all different.
        rows: rows of the batch.
        steps: steps of each.
        whole: for each direction of each recurrent layer of the parent: what it reads, its units.
        cut: the same of a trunk cut down to its units, on average.
        removed: units removed of each of these layers, on average, where they are guessed from
            others; 0 where not.
        gates: of the cell.
        packs: whether weights can be packed beforehand.
    """

    trunks: int
    rows: int
    steps: int
    whole: tuple[tuple[int, int], ...]
    cut: tuple[tuple[int, int], ...]
    removed: tuple[int, ...]
    gates: int
    packs: bool = False

    @classmethod
    def of(cls, config: NetworkConfig, trunks: Sequence[Trunk], rows: int, steps: int) -> Work:
        """The work of running ``trunks`` of a network with this structure."""
        kept = [trunk.sizes for trunk in trunks]
        mixed = {name for trunk in trunks for name in trunk.mix}
        return cls.from_sizes(config, kept, mixed, rows, steps)

    @classmethod
    def from_sizes(
        cls,
        config: NetworkConfig,
        kept: Sequence[Mapping[str, int]],
        mixed: AbstractSet[str],
        rows: int,
        steps: int,
    ) -> Work:
        """The same from what is known of trunks without their masks.

        Args:
            config: the parent's structure.
            kept: for each trunk, the units it keeps of each layer.
            mixed: layers in which some trunk guesses removed units from others.
            rows: rows of the batch.
            steps: steps of each.
        """
        mean = {name: sum(sizes[name] for sizes in kept) / len(kept) for name in config.units}
        whole, cut, removed = [], [], []
        for layer, directions in enumerate(config.recurrent):
            below = config.inputs_of(layer)
            for d, units in enumerate(directions):
                name = f"recurrent.{layer}.{DIRECTIONS[d]}"
                first = config.step_size
                whole.append((sum(config.units[n] for n in below) if below else first, units))
                inputs = round(sum(mean[n] for n in below)) if below else first
                cut.append((inputs, round(mean[name])))
                removed.append(round(units - mean[name]) if name in mixed else 0)
        gates = GATES[config.cell]
        sizes = tuple(whole), tuple(cut), tuple(removed)
        return cls(len(kept), rows, steps, *sizes, gates, packable(config))

    def parent(self) -> Product:
        """What one pass of the parent counts."""
        return _kernel(self.whole, self.gates, self.rows, self.steps)

    def one(self) -> Product:
        """What one trunk, cut down to its units, counts."""
        return _kernel(self.cut, self.gates, self.rows, self.steps)

    def stepped(self, trunks: int | None = None) -> Product:
        """What ``trunks`` of them count, stepped together over the parent's own weights."""
        count, gates = self.trunks if trunks is None else trunks, self.gates
        states = count * self.rows
        counts = [0.0, 0.0, 0.0, 0.0]
        for (inputs, units), removed in zip(self.whole, self.removed, strict=True):
            counts[0] += self.steps
            counts[1] += self.steps * states * 2 * gates * units * units
            counts[2] += self.steps * states * gates * units
            counts[3] += self.steps * count * units * removed
            if inputs != self.whole[0][0] or len(self.whole) > 2:
                counts[1] += self.steps * states * 2 * gates * inputs * units
        return tuple(counts)


def _kernel(sizes: Sequence[tuple[int, int]], gates: int, rows: int, steps: int) -> Product:
    counts = [0.0, 0.0, 0.0, 0.0]
    for inputs, units in sizes:
        weights = gates * units * (inputs + units)
        counts[0] += 1
        counts[1] += steps
        counts[2] += steps * rows * 2 * weights
        counts[3] += steps * weights
    return tuple(counts)


def seconds(work: Work, threads: int, machine: Machine = COMMON) -> Mapping[str, float]:
    """What each way of running the trunks should take, and one pass of the parent."""
    count, kernel = work.trunks, "kernel" if work.packs else "layer"
    alone = "_one" if threads == 1 else ""
    found = {
        "parent": machine.time(f"layer{alone}", work.parent()),
        "sliced": count * machine.time(f"{kernel}{alone}", work.one()),
    }
    if threads > 1 and count > 1:
        rounds = -(-count // threads)
        each = machine.time(f"{kernel}_one", work.one())
        found["threads"] = machine.handoff + rounds * each + count * machine.alone
    shares = max(min(threads, count, count * work.rows // 64), 1)
    part = machine.time("stepped", work.stepped(-(-count // shares)))
    found["stacked"] = part + (machine.handoff if shares > 1 else 0.0)
    return found


def estimate(config: NetworkConfig, load: Load) -> Mapping[str, float]:
    """Seconds of each way of running some trunks, and of ``"parent"``, one of its passes."""
    steps = load.steps or config.steps or 16
    if config.feed != "steps":
        steps = config.output_steps or 1
    work = Work.from_sizes(config, load.kept, load.mixed, load.rows, steps)
    return seconds(work, threads_here())
