"""What composites cost, in passes of the parent: ``python -m benchmarks.speed --json FILE``.

Everything that is compared runs in turn, in the same process, at least twenty times; figures are
medians of the ratios, with their quartiles. The parent is an ordinary ``nn.Module`` in evaluation
and inference mode. Weights are random where accuracy is not asked for: time does not depend on
them. The command ends with status 1 where a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.speed_decomposing import tagger, whole_decompositions
from benchmarks.speed_parents import (
    STEPS,
    VOCABULARY,
    Network,
    make_modules,
    make_parent,
    make_rows,
    plain_loop,
    random_trunk,
)
from benchmarks.speed_plot import draw
from benchmarks.timing import Figure, bytes_of, interleaved, markdown, ratio, show
from mlflow_rnnmod.composition import Composite, compose
from mlflow_rnnmod.decomposition import DecompositionConfig, collect, decompose, draw_sample
from mlflow_rnnmod.decomposition.module import Module, make_contract
from mlflow_rnnmod.networks import Parent, Rows, Trunk
from mlflow_rnnmod.networks.many import WAYS, threads
from mlflow_rnnmod.networks.recurrent.config import GATES
from mlflow_rnnmod.storage import write_module, write_parent

COUNTS = (1, 2, 5, 10, 20, 50, 100, 150)
ISOLATED = {(10, 1): 5.0, (10, 64): 4.0, (10, 512): 4.5, (150, 1): 14.0, (150, 64): 40.0,
            (150, 512): 35.0}  # fmt: skip


def composites(
    cell: str, layers: int, steps: int, count: int, sizes: Sequence[int], repeats: int
) -> list[Figure]:
    """Composites of ``count`` modules against the parent and the plain loop."""
    user, parent = make_parent(cell, layers, count)
    torch.manual_seed(1)
    whole = compose(make_modules(parent, [Trunk.whole(parent.network.units)]))
    shared = compose(make_modules(parent, [random_trunk(parent)]))
    isolated = compose(make_modules(parent, [random_trunk(parent) for _ in range(count)]))
    loop = plain_loop(isolated.modules)
    limits = (cell, layers, steps) == ("lstm", 1, STEPS)
    kind = "" if limits else f"{cell}, {layers} layer{'s' * (layers > 1)}, {steps} steps: "
    found = []
    for size in sizes:
        rows = make_rows(size, steps)

        def run(composite: Composite, rows: Rows = rows) -> Callable[[], object]:
            return lambda: composite.scores(rows)

        def parent_pass(rows: Rows = rows) -> Tensor:
            with torch.inference_mode():
                return user(rows.values, rows.lengths)

        ways = {
            "parent": parent_pass,
            "full": run(whole),
            "shared": run(shared),
            "isolated": run(isolated),
            "loop": lambda rows=rows: loop(rows),
        }
        if limits:
            ways["products"] = products(isolated, size, steps)
        slow = count * size > 5000
        if slow:  # minutes of repeats: fewer, and the loop is run for a tenth of the modules
            part = plain_loop(isolated.modules[: count // 10])
            ways["loop"] = lambda rows=rows, part=part: part(rows)
        times = interleaved(ways, repeats)
        if slow:
            times["loop"] = [10 * seconds for seconds in times["loop"]]
        where = f"{kind}N = {count}, batch {size}"
        way = isolated.engine.ways(size, steps)[0]
        passes = times["parent"]
        one = 1.25 if limits else None
        found += [
            ratio(f"one full trunk / parent, {where}", times["full"], passes, one),
            ratio(f"one shared trunk / parent, {where}", times["shared"], passes, one),
            ratio(
                f"isolated / parent, {where}",
                times["isolated"],
                passes,
                ISOLATED.get((count, size)) if limits else None,
                f"{way}; parent {1e3 * statistics.median(passes):.2f} ms",
            ),
            ratio(
                f"isolated / plain loop, {where}",
                times["isolated"],
                times["loop"],
                (0.12 if (count, size) == (150, 1) else 0.8) if limits else None,
                "loop of a tenth, times ten" if slow else "",
            ),
        ]
        if limits:
            least = "of the matrices alone, at any way"
            found.append(
                ratio(f"products / parent, {where}", times["products"], passes, None, least)
            )
            found.append(chosen(isolated, rows, where, repeats))
    return found


def products(composite: Composite, size: int, steps: int) -> Callable[[], None]:
    """Nothing but the products that isolated modules can't do without, of one recurrent layer.

    What goes in by one product for all steps; states by one batched product a step, of a few
    modules after another, so that what they write stays in the cache.
    """
    network, sizes = composite.modules[0].parent.network, composite.modules[0].trunk.sizes
    count, below = len(composite.modules), network.config.step_size
    units, gates = sizes["recurrent.0.fwd"], GATES[network.config.cell]
    few = min(count, 10)
    given, into = torch.zeros(steps * size, below), torch.zeros(below, gates * units)
    projected = torch.empty(steps * size, gates * units)
    states, matrices = torch.zeros(few, size, units), torch.zeros(few, units, gates * units)
    out = torch.empty(few, size, gates * units)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(count):
            torch.mm(given, into, out=projected)
        for _ in range(-(-count // few) * steps):
            torch.bmm(states, matrices, out=out)

    return run


def chosen(composite: Composite, rows: Rows, where: str, repeats: int) -> Figure:
    """The way that trunks are run in against the best of all, of which the loop never is one."""
    ways = [way for way in WAYS if way != "loop"]
    runs = {way: partial(composite.scores, rows, way) for way in ways}
    times = interleaved(runs, min(repeats, 9))
    best = min(ways[1:], key=lambda way: statistics.median(times[way]))
    return ratio(f"chosen way / best, {where}", times["auto"], times[best], 1.1, f"best: {best}")


def watching(repeats: int) -> list[Figure]:
    """The decomposition's pass over the sample against an evaluation pass over it."""
    found, ten = [], {}
    for labels in (10, 150):
        user, parent = make_parent("lstm", 1, labels)
        count = 3000
        values = torch.randint(1, VOCABULARY, (count, STEPS))
        rows = Rows(values, torch.full((count,), STEPS), torch.arange(count) % labels)
        sample = draw_sample(rows, labels, 500, 0)

        def evaluate(user: Network = user, sample=sample) -> None:
            with torch.inference_mode():
                for batch in sample.rows.batches(512):
                    user(batch.values, batch.lengths)

        network = parent.network
        ways = {
            "pass": evaluate,
            "paper": lambda n=network, s=sample: collect(n, s, gradients=False),
            "sensitivity": lambda n=network, s=sample: collect(n, s, histograms=False),
        }
        times = interleaved(ways, repeats)
        for rule, limit in (("paper", 1.4), ("sensitivity", 3.5)):
            if labels == 10:
                ten[rule] = times[rule]
                name = f"statistics of 10 labels / evaluation pass, {rule}"
                found.append(ratio(name, times[rule], times["pass"], limit))
            else:
                name = f"statistics of 150 labels / of 10, {rule}"
                found.append(ratio(name, times[rule], ten[rule], 1.2))
    return found


def dial(data_dir: Path, cache: Path, repeats: int) -> list[Figure]:
    """Few trunks on CLINC domains: what a composite costs, and that it is as good as its parent."""
    from benchmarks.classifiers import Training
    from benchmarks.data import load_clinc
    from benchmarks.parents import train_parent

    data = load_clinc(data_dir, "domain")
    parent, _ = train_parent(data, Training(), cache)
    encoder = parent.tokenizer
    assert encoder is not None
    splits = [data.rows(split, encoder) for split in ("train", "validation", "test")]
    # As good as the parent is what is asked for: nothing may be lost against the control.
    config = DecompositionConfig(trunks="auto", max_cost=1.5, tolerance=0.0)
    found = decompose(parent, *splits, config=config)
    # The same without its tokenizer, so that both are timed on token ids.
    bare = Parent(parent.network)
    modules = [
        Module(bare, m.trunk, m.head, m.open_head, m.energy, make_contract(bare, m.label))
        for m in found.modules
    ]
    composite, batch = compose(modules), splits[2][:64]

    def passes() -> Tensor:
        with torch.inference_mode():
            return parent.network(batch)

    ways = {"parent": passes, "composite": lambda: composite.scores(batch)}
    times = interleaved(ways, repeats)
    delta = 100 * found.figures["delta_accuracy"]
    distinct = len({m.trunk for m in modules})
    note = f"{distinct} trunks, {found.figures['removal']:.0%} removed"
    return [
        ratio("trunks='auto', max_cost=1.5 / parent, batch 64", times["composite"],
              times["parent"], 1.7, note),
        Figure("... points below the parent, CLINC domains", -delta, -delta, -delta, 0.0),
    ]  # fmt: skip


def sizes() -> Figure:
    """Bytes of all files of 150 modules and their parent against the parent's."""
    _, parent = make_parent("lstm", 1, 150)
    modules = make_modules(parent, [random_trunk(parent) for _ in range(150)])
    with tempfile.TemporaryDirectory() as folder:
        write_parent(parent, Path(folder) / "parent")
        alone = bytes_of(Path(folder))
        for i, module in enumerate(modules):
            write_module(module, Path(folder) / str(i))
        value = bytes_of(Path(folder)) / alone
    return Figure("bytes of 150 modules + parent / parent", value, value, value, 2.0)


def memory() -> Figure:
    """Peak memory of one batch of 512, above what the loaded process has; a process each."""
    found = {}
    for what in ("parent", "composite"):
        command = [sys.executable, "-m", "benchmarks.speed", "--memory", what]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found[what] = float(done.stdout.split()[-1])
    value = found["composite"] / found["parent"]
    note = f"{found['composite']:.0f} / {found['parent']:.0f} MB"
    return Figure("peak memory of 150 isolated / parent, batch 512", value, value, value, 8.0, note)


def measure_memory(what: str) -> float:
    """Megabytes at the peak of one call above what was there before it (Linux)."""
    user, parent = make_parent("lstm", 1, 150)
    rows = make_rows(512, STEPS)
    composite = None
    if what == "composite":
        composite = compose(make_modules(parent, [random_trunk(parent) for _ in range(150)]))
    # What the libraries load and keep when they are first used belongs to the loaded process.
    _, small = make_parent("lstm", 1, 4)
    few = compose(make_modules(small, [random_trunk(small) for _ in range(4)]))
    for way in WAYS:
        few.scores(rows[:32], way)
    with torch.inference_mode():
        user(rows.values[:32], rows.lengths[:32])
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    if composite is None:
        with torch.inference_mode():
            user(rows.values, rows.lengths)
    else:
        composite.scores(rows)
    return (_status("VmHWM") - before) / 1024


def _status(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name)))


def served(repeats: int) -> Figure:
    """A composite behind MLflow's pyfunc against the composite itself, on a table of texts."""
    import mlflow
    import pandas as pd

    import mlflow_rnnmod
    from benchmarks.data import word_tokenizer
    from mlflow_rnnmod.networks import TextEncoder

    _, bare = make_parent("lstm", 1, 10)
    torch.manual_seed(3)
    words = [f"word{i}" for i in range(VOCABULARY - 2)]
    encoder = TextEncoder(word_tokenizer([" ".join(words)], VOCABULARY, STEPS))
    parent = Parent(bare.network, encoder)
    composite = compose(make_modules(parent, [random_trunk(parent) for _ in range(10)]))
    picked = torch.randint(len(words), (64, STEPS)).tolist()
    texts = [" ".join(words[i] for i in row) for row in picked]
    with tempfile.TemporaryDirectory() as folder:
        mlflow_rnnmod.save_model(composite, f"{folder}/model")
        model = mlflow.pyfunc.load_model(f"{folder}/model")
        frame = pd.DataFrame({"text": texts})
        ways = {"direct": lambda: composite.predict(texts), "served": lambda: model.predict(frame)}
        times = interleaved(ways, repeats)
    return ratio("pyfunc / direct, batch 64", times["served"], times["direct"], 1.5)


def curve(repeats: int, size: int = 64) -> list[dict[str, float]]:
    """Milliseconds of a batch by number of modules: what the plot shows."""
    most = COUNTS[-1]
    user, parent = make_parent("lstm", 1, most)
    torch.manual_seed(1)
    modules = make_modules(parent, [random_trunk(parent) for _ in range(most)])
    together = make_modules(parent, [random_trunk(parent)])
    rows, found = make_rows(size, STEPS), []

    def passes() -> Tensor:
        with torch.inference_mode():
            return user(rows.values, rows.lengths)

    for count in COUNTS:
        isolated, shared = compose(modules[:count]), compose(together[:count])
        loop = plain_loop(modules[:count])
        ways = {
            "parent": passes,
            "loop": partial(loop, rows),
            "isolated": partial(isolated.scores, rows),
            "shared": partial(shared.scores, rows),
        }
        times = interleaved(ways, repeats)
        medians = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
        found.append({"modules": count, **medians})
    return found


def measure(arguments: argparse.Namespace) -> list[Figure]:
    """All figures, in the order of the table."""
    repeats = arguments.repeats
    figures = []
    for count in (10, 150):
        figures += composites("lstm", 1, STEPS, count, (1, 64, 512), repeats)
    if not arguments.short:
        for cell, layers, steps in (("gru", 1, STEPS), ("lstm", 2, STEPS), ("lstm", 1, 50)):
            figures += composites(cell, layers, steps, 10, (1, 64, 512), repeats)
            figures += composites(cell, layers, steps, 150, (1,), repeats)
    if arguments.data_dir:
        figures += dial(arguments.data_dir, arguments.cache, repeats)
    figures += watching(repeats)
    figures += [*whole_decompositions(), *tagger()]
    return [*figures, sizes(), memory(), served(repeats)]


def main() -> int:
    """Measure, print, write; 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--short", action="store_true", help="only what has limits and is quick")
    parser.add_argument("--data-dir", type=Path, help="the paper's data sets, for trunks='auto'")
    parser.add_argument("--cache", type=Path, default=Path(".cache/parents"))
    parser.add_argument("--memory", choices=("parent", "composite"), help=argparse.SUPPRESS)
    parser.add_argument("--plot", type=Path, help="draw cost against number of modules here")
    parser.add_argument("--markdown", type=Path, help="write the README's table here")
    arguments = parser.parse_args()
    if arguments.memory:
        print(measure_memory(arguments.memory))
        return 0
    started = time.perf_counter()
    figures = measure(arguments)
    show(figures)
    points = curve(max(arguments.repeats // 3, 3)) if arguments.plot else []
    if arguments.plot:
        draw(points, arguments.plot)
    if arguments.markdown:
        arguments.markdown.write_text(markdown(figures))
    missed = [figure.name for figure in figures if figure.missed]
    if arguments.json:
        body = {
            "figures": [{**asdict(figure), "missed": figure.missed} for figure in figures],
            "curve": points,
            "threads": threads(),
            "torch": torch.__version__,
            "repeats": arguments.repeats,
            "seconds": time.perf_counter() - started,
        }
        arguments.json.write_text(json.dumps(body, indent=1))
    print(f"{len(missed)} limits missed" + "".join(f"\n- {name}" for name in missed))
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
