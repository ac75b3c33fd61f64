"""What a composite would be, told from its modules' contracts before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow_rnnmod.answers import Answer, answer_of
from mlflow_rnnmod.answers.joining import joined
from mlflow_rnnmod.composition.contracts import doubts, find_problems
from mlflow_rnnmod.decomposition.module import Contract, Module
from mlflow_rnnmod.networks.architectures import FIRST, architecture_of
from mlflow_rnnmod.networks.protocol import Load


@dataclass(frozen=True)
class Entry:
    """A module as a plan sees it: what its ``module.json`` says.

    Args:
        name: to show it by: its URI, or its label.
        contract: what it accepts and promises.
        parent: digest of its parent.
        trunk: digest of its trunk.
        kept: units of each maskable layer that are run: those kept, or all where masks are for
            single steps or gates; empty where an older file does not say.
        full: whether nothing is removed; None where an older file does not say.
        mixed: layers whose removed units are guessed from kept ones.
        network: the parent's structure, as its config's ``to_dict`` gives it; None where an older
            file does not say.
        architecture: of the parent.
        figures: as the module has them.
        bytes: of the module's own files; None where unknown.
        parent_bytes: of the parent's weights; None where unknown.
        likelihood: the space of its likelihood; None where it has none.
    """

    name: str
    contract: Contract
    parent: str
    trunk: str
    kept: Mapping[str, int] = field(default_factory=dict)
    full: bool | None = None
    mixed: tuple[str, ...] = ()
    network: Mapping[str, Any] | None = None
    architecture: str = FIRST
    figures: Mapping[str, float] = field(default_factory=dict)
    bytes: int | None = None
    parent_bytes: int | None = None
    likelihood: str | None = None


def entry_of(module: Module) -> Entry:
    """The entry of a module that is loaded."""
    return Entry(
        name=module.origin.get("uri") or module.label,
        contract=module.contract,
        parent=module.parent.digest,
        trunk=module.trunk.digest,
        figures=dict(module.figures),
        likelihood=None if module.likelihood is None else module.likelihood.space,
        **facts_of(module),
    )


def facts_of(module: Module) -> dict[str, Any]:
    """What a plan needs to know of a module beside its contract, as JSON types."""
    network = module.parent.network.config.to_dict()
    if "labels" in network:
        network["labels"] = []  # they are in the contract
    architecture = module.parent.network.architecture
    return {
        **({} if architecture == FIRST else {"architecture": architecture}),
        "kept": module.trunk.sizes,
        "full": module.trunk.full,
        "mixed": tuple(sorted(module.trunk.mix)),
        "network": network,
        "parent_bytes": module.parent.bytes,
    }


@dataclass(frozen=True)
class Plan:
    """What would happen if some modules were composed.

    Args:
        problems: every reason why they can't be; empty where they can.
        labels: of the composite.
        parents: for each distinct parent: ``digest``, ``labels`` (how many of its modules),
            ``trunks`` (how many different ones) and ``passes`` (None where unknown).
        trunks: number of distinct trunks.
        parameters: of the parents, each once, and of the modules; None where unknown.
        bytes: the same, in bytes of the files.
        batch_size: rows that the next two are for.
        passes: what a batch costs, as multiples of one pass of its parent, added over parents.
        milliseconds: what a batch should take here.
        accuracy: expected share of right answers: the modules' recall, weighed by their support;
            across parents it is what each has among its own labels, an upper bound. None where an
            answer is several labels.
        notes: what else one should know.
        output: kind of answer; None where the modules can't be composed.
        f1: expected F1 over all rows and labels alike, where an answer is several labels: from the
            modules' precision and recall.
    """

    problems: tuple[str, ...]
    labels: tuple[str, ...]
    parents: tuple[Mapping[str, Any], ...]
    trunks: int
    parameters: int | None
    bytes: int | None
    batch_size: int
    passes: float | None
    milliseconds: float | None
    accuracy: float | None
    notes: tuple[str, ...] = ()
    output: str | None = "label"
    f1: float | None = None

    @property
    def fits(self) -> bool:
        """Whether the modules can be composed."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return json.loads(json.dumps({**asdict(self), "fits": self.fits}))

    def to_json(self) -> str:
        """As a JSON document."""
        return json.dumps(self.to_dict(), indent=1, ensure_ascii=False)

    def rows(self) -> list[tuple[str, str]]:
        """What a table of it shows: names and values."""
        shown = [
            ("modules", str(len(self.labels))),
            ("parents", ", ".join(p["digest"][:12] for p in self.parents)),
            ("distinct trunks", str(self.trunks)),
            ("parameters", _number(self.parameters)),
            ("bytes", _number(self.bytes)),
            (f"parent passes, batch of {self.batch_size}", _number(self.passes, "{:.1f}")),
            ("milliseconds here", _number(self.milliseconds, "{:.1f}")),
        ]
        answer = answer_of(self.output or "label")
        expected = {"accuracy": ("accuracy", self.accuracy), "f1": ("F1", self.f1)}
        if answer.metric in expected:
            name, value = expected[answer.metric]
            shown.append((f"{name} to expect", _number(value, "{:.1%}")))
        if answer.words:
            shown.insert(1, ("answer", answer.words))
        shown += [("note", note) for note in self.notes]
        return shown + [("problem", problem) for problem in self.problems]

    def __str__(self) -> str:
        width = max(len(name) for name, _ in self.rows())
        return "\n".join(f"{name:<{width}}  {value}" for name, value in self.rows())


def _number(value: float | None, form: str = "{:,}") -> str:
    return "unknown" if value is None else form.format(value)


def make_plan(
    entries: Iterable[Entry],
    batch_size: int = 64,
    steps: int | None = None,
    more_problems: Sequence[str] = (),
) -> Plan:
    """Plan a composite.

    ``steps``: of an input; by default what the parents are fixed to, or 16.

    Example:
        >>> make_plan([]).problems
        ('there is no module; expected at least one',)
    """
    entries = list(entries)
    if batch_size < 1 or (steps is not None and steps < 1):
        raise ValueError(
            f"batch_size={batch_size!r}, steps={steps!r}; expected positive whole numbers."
        )
    found = [*more_problems]
    if entries or not more_problems:
        found += find_problems((e.name, e.contract, e.parent) for e in entries)
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.parent, []).append(entry)
    costs = [_cost(group, batch_size, steps) for group in groups.values()]
    parents = tuple(
        {
            "digest": digest,
            "labels": len(group),
            "trunks": len({entry.trunk for entry in group}),
            "passes": None if cost is None else cost[1],
        }
        for (digest, group), cost in zip(groups.items(), costs, strict=True)
    )
    known = [cost for cost in costs if cost is not None]
    complete = bool(entries) and all(_tells(entry) for entry in entries)
    costed = complete and len(known) == len(groups)
    notes = []
    if entries and not complete:
        notes.append("some modules were written by an older version and do not tell their size")
    if not all(entry.contract.answer.scored for entry in entries):
        notes.append("how long a translation takes depends on what is translated: not estimated")
    answer = joined(entry.contract for entry in entries)
    metric = None if answer is None else answer.metric
    if len(groups) > 1 and metric != "f1":
        notes.append(
            "several parents: the accuracy is what each has among its own labels, an upper bound"
        )
    notes += _notes_on_kinds(entries, answer)
    notes += doubts((e.name, e.contract, e.parent) for e in entries)
    notes += _notes_on_likelihoods(entries, answer)
    return Plan(
        problems=tuple(found),
        labels=tuple(entry.contract.label for entry in entries),
        parents=parents,
        trunks=len({(entry.parent, entry.trunk) for entry in entries}),
        parameters=_parameters(groups) if complete else None,
        bytes=_bytes(groups) if complete else None,
        batch_size=batch_size,
        passes=sum(cost[1] for cost in known) if costed else None,
        milliseconds=1e3 * sum(cost[0] for cost in known) if costed else None,
        accuracy=None if metric == "f1" else _accuracy(entries),
        notes=tuple(notes),
        output=None if answer is None else answer.name,
        f1=_micro_f1(entries) if metric == "f1" else None,
    )


def _notes_on_kinds(entries: Sequence[Entry], answer: Answer | None) -> list[str]:
    """What one should know of modules that answer each step, or have masks for single steps."""
    found = []
    stepwise, rivals = (answer.stepwise, answer.rivals) if answer else (False, False)
    if rivals and not stepwise and any(e.contract.answer.stepwise for e in entries):
        found.append(
            "modules that answer each step answer for the whole input by their best one, less the "
            "logarithm of the number of steps; their figures are those of single steps or lists"
        )
    if stepwise and not rivals:
        found.append(
            "not all labels of a list are there: each says for itself whether it is anywhere in it"
        )
    masks = {e.contract.mask_steps for e in entries if e.contract.mask_steps is not None}
    if masks:
        shown = " or ".join(str(count) for count in sorted(masks))
        found.append(f"{shown} steps have a mask of their own; later ones have the last one's")
    return found


def _notes_on_likelihoods(entries: Sequence[Entry], answer: Answer | None) -> list[str]:
    """Whether parents of different labels are compared without likelihoods that some have."""
    worlds = {frozenset(entry.contract.labels) for entry in entries}
    spaces = {entry.likelihood for entry in entries}
    if len(worlds) < 2 or answer is None or not answer.rivals or len(spaces) < 2:
        return []
    missing = [entry.name for entry in entries if entry.likelihood is None]
    why = (
        f"{len(missing)} of {len(entries)} modules have none" if missing else "they differ in kind"
    )
    return [f"compared without likelihoods: {why}"]


def _tells(entry: Entry) -> bool:
    """Whether a module tells its size."""
    return entry.network is not None and bool(entry.kept)


def _cost(group: Sequence[Entry], rows: int, steps: int | None) -> tuple[float, float] | None:
    """Seconds of a batch of one parent's modules, and passes of that parent; None if unknown."""
    with _blamed(group[0]):
        return _told_cost(group, rows, steps)


def _told_cost(group: Sequence[Entry], rows: int, steps: int | None) -> tuple[float, float] | None:
    tell = architecture_of(group[0].architecture).seconds
    if tell is None or not all(_tells(entry) for entry in group):
        return None
    trunks = {entry.trunk: entry for entry in group}.values()
    config = _config(group[0])
    full = [e for e in trunks if _is_full(e, config)]
    cut = [e for e in trunks if not _is_full(e, config)]
    run = cut or full
    mixed = frozenset(name for entry in run for name in entry.mixed)
    times = dict(tell(config, Load([entry.kept for entry in run], mixed, rows, steps)))
    parent = times.pop("parent")
    total = parent * bool(full) + (min(times.values()) if cut else 0.0)
    return total, total / parent


@contextmanager
def _blamed(entry: Entry) -> Iterator[None]:
    """Errors name the module whose file says of its parent what can't be."""
    try:
        yield
    except (
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        raise ValueError(
            f"{entry.name}: its module.json says of its parent what can't be: {error}"
        ) from error


def _is_full(entry: Entry, config: Any) -> bool:
    return dict(entry.kept) == config.units if entry.full is None else entry.full


def _structure(entry: Entry) -> dict[str, Any]:
    """The parent's structure, with the labels that the contract has."""
    assert entry.network is not None
    given = dict(entry.network)
    return {**given, "labels": list(entry.contract.labels)} if "labels" in given else given


def _config(entry: Entry) -> Any:
    return architecture_of(entry.architecture).config.from_dict(_structure(entry))


def _parameters(groups: Mapping[str, Sequence[Entry]]) -> int:
    """Of the parents, each once, and of two heads a module with a weight for each readout unit."""
    total = 0
    for group in groups.values():
        with _blamed(group[0]):
            network = architecture_of(group[0].architecture).build(_structure(group[0]))
        total += sum(weight.numel() for weight in network.parameters())
        if network.readout_groups:
            total += len(group) * 2 * (network.config.readout_size + 1)
    return total


def _bytes(groups: Mapping[str, Sequence[Entry]]) -> int | None:
    parents = [group[0].parent_bytes for group in groups.values()]
    modules = [entry.bytes or 0 for group in groups.values() for entry in group]
    if any(size is None for size in parents):
        return None
    return sum(size for size in parents if size is not None) + sum(modules)


def _accuracy(entries: Sequence[Entry]) -> float | None:
    """Recall, weighed by support: the share of right answers on the labels' own rows."""
    pairs = [(e.figures.get("recall"), e.figures.get("support")) for e in entries]
    if not pairs or any(recall is None or not support for recall, support in pairs):
        return None
    total = sum(support or 0.0 for _, support in pairs)
    return sum((recall or 0.0) * (support or 0.0) for recall, support in pairs) / total


def _micro_f1(entries: Sequence[Entry]) -> float | None:
    """F1 over all labels alike, from each label's precision, recall and support."""
    hits = said = right = 0.0
    counted = [e for e in entries if e.contract.label != e.contract.end_label]
    for entry in counted:
        figures = [entry.figures.get(name) for name in ("precision", "recall", "support")]
        if any(value is None for value in figures):
            return None
        precision, recall, support = (float(value or 0.0) for value in figures)
        own = 0.0 if recall != recall else recall * support
        hits, right = hits + own, right + support
        said += own / precision if precision > 0 else 0.0
    return 2 * hits / (said + right) if said + right else None
