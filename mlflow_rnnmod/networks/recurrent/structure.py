"""Which submodules of a user's network are its embedding, recurrent layers and dense layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from mlflow_rnnmod.networks.recurrent.submodules import describe, listing, of_type, walk
from mlflow_rnnmod.networks.spec import NetworkSpec, UnreadableNetwork, problem_of_kinds

_MOST_LINEAR_LAYERS_TO_ORDER = 5


@dataclass(frozen=True)
class Parts:
    """Names of the submodules that make up a network, in the order in which they run.

    Args:
        embedding: ``None`` for float features, and for token ids that the network turns into
            one-hot vectors by itself.
        recurrent: one or several.
        hidden: dense layers between readout and head.
        head: the output layer.
    """

    embedding: str | None
    recurrent: tuple[str, ...]
    hidden: tuple[str, ...]
    head: str

    @property
    def names(self) -> tuple[str | None, ...]:
        """All of them."""
        return (self.embedding, *self.recurrent, *self.hidden, self.head)


def find_parts(
    module: nn.Module,
    values: Tensor,
    labels: Sequence[str],
    spec: NetworkSpec,
    steps_known: bool = True,
) -> Parts:
    """The parts of ``module``: those that ``spec`` names, the others by their type.

    Args:
        module: the user's network.
        values: inputs of a batch, token ids or float features.
        labels: names of the labels, as many as the head has outputs (two for a single output).
        spec: names that are known.
        steps_known: whether real inputs have as many steps as ``values``.
    """
    found = list(walk(module))
    problems = _refused(found)
    embedding = _find_embedding(module, found, values, spec, problems)
    recurrent = _find_recurrent(module, found, spec, problems)
    hidden, head = _find_dense(module, found, recurrent, labels, spec, problems)
    if not problems:
        problems = _size_problems(module, embedding, recurrent, values, spec, steps_known)
        problems += _dtype_problems(module, (embedding, *recurrent, *hidden, head))
    if problems:
        raise UnreadableNetwork(
            f"The network {type(module).__name__} can't be read:\n- " + "\n- ".join(problems)
        )
    return Parts(embedding, recurrent, hidden, head)


def _refused(found: list[tuple[str, nn.Module]]) -> list[str]:
    """Submodules of kinds that can't be read at all."""
    problems = []
    for name, part in found:
        if isinstance(part, LazyModuleMixin) and part.has_uninitialized_params():
            problems.append(
                f"{describe(name, part)} is lazy and has no weights yet; run one batch through the "
                "network first"
            )
        elif "quantized" in type(part).__module__ and type(part).__module__.startswith("torch."):
            problems.append(
                f"{name} ({type(part).__module__}.{type(part).__name__}) is quantized; expected "
                "the float network that it was made from"
            )
    return problems


def _named(
    module: nn.Module,
    found: list[tuple[str, nn.Module]],
    argument: str,
    name: str,
    kind: type,
    problems: list[str],
) -> bool:
    """Whether ``name`` is a submodule of this kind; if not, a problem is noted."""
    try:
        part = module.get_submodule(name)
    except AttributeError:
        problems.append(
            f"{argument}={name!r} is no submodule; candidates: {listing(of_type(found, kind))}"
        )
        return False
    if not isinstance(part, kind):
        problems.append(
            f"{argument}={name!r} is a {type(part).__name__}, expected a {kind.__name__}; "
            f"candidates: {listing(of_type(found, kind))}"
        )
        return False
    return True


def _find_embedding(
    module: nn.Module,
    found: list[tuple[str, nn.Module]],
    values: Tensor,
    spec: NetworkSpec,
    problems: list[str],
) -> str | None:
    if values.is_floating_point():
        if spec.embedding is not None:
            problems.append(
                f"embedding={spec.embedding!r} with {values.dtype} inputs; an embedding reads "
                "int64 token ids"
            )
        return None
    if spec.embedding is not None:
        _named(module, found, "embedding", spec.embedding, nn.Embedding, problems)
        return spec.embedding
    candidates = of_type(found, nn.Embedding)
    if len(candidates) == 1:
        return candidates[0][0]
    if candidates:
        problems.append(
            f"{len(candidates)} submodules could be the embedding: {listing(candidates)}; say "
            "which with NetworkSpec(embedding=...)"
        )
    bags = of_type(found, nn.EmbeddingBag)
    if bags and not candidates:
        problems.append(f"{listing(bags)} is not covered; expected an nn.Embedding")
    return None  # token ids without an embedding: one-hot vectors, which parity will check


def _find_recurrent(
    module: nn.Module,
    found: list[tuple[str, nn.Module]],
    spec: NetworkSpec,
    problems: list[str],
) -> tuple[str, ...]:
    before = len(problems)
    if spec.recurrent is not None:
        names = (spec.recurrent,) if isinstance(spec.recurrent, str) else spec.recurrent
        for name in names:
            _named(module, found, "recurrent", name, nn.RNNBase, problems)
        if len(problems) > before:
            return ()
    else:
        candidates = of_type(found, nn.RNNBase)
        if not candidates:
            problems.append(_no_recurrent_layer(found))
            return ()
        if len(candidates) > 1:
            every = tuple(name for name, _ in candidates)
            problems.append(
                f"{len(candidates)} submodules could be the recurrent layer: "
                f"{listing(candidates)}; say which with NetworkSpec(recurrent=...), for layers "
                f"that follow one another NetworkSpec(recurrent={every!r}). A decoder that starts "
                "from an encoder's state, and is fed answers, is a translator: see TranslatorSpec"
            )
            return ()
        names = (candidates[0][0],)
    layers = recurrent_layers(module, names)
    for name, layer in zip(names, layers, strict=True):
        if layer.proj_size:
            problems.append(
                f"{describe(name, layer)} has proj_size={layer.proj_size}, which is not covered; "
                "expected proj_size=0"
            )
    kinds = sorted({layer.mode for layer in layers})
    if len(kinds) > 1:
        problems.append(f"recurrent={names!r} mixes {kinds}; expected one kind of cell")
    return names if len(problems) == before else ()


def _no_recurrent_layer(found: list[tuple[str, nn.Module]]) -> str:
    text = "no recurrent layer: expected an nn.RNN, nn.LSTM or nn.GRU"
    cells = of_type(found, nn.RNNCellBase)
    if cells:
        return f"{text}; {listing(cells)} is run step by step by code that can't be read"
    children = [(name, part) for name, part in found if name and "." not in name]
    return f"{text} among the submodules {listing(children)}"


def linear(module: nn.Module, name: str) -> nn.Linear:
    """The dense submodule of this name."""
    found = module.get_submodule(name)
    assert isinstance(found, nn.Linear)
    return found


def recurrent_layers(module: nn.Module, names: Sequence[str]) -> list[nn.RNNBase]:
    """The recurrent submodules of these names."""
    layers = [module.get_submodule(name) for name in names]
    assert all(isinstance(layer, nn.RNNBase) for layer in layers)
    return layers  # type: ignore[return-value]


def _find_dense(
    module: nn.Module,
    found: list[tuple[str, nn.Module]],
    recurrent: tuple[str, ...],
    labels: Sequence[str],
    spec: NetworkSpec,
    problems: list[str],
) -> tuple[tuple[str, ...], str]:
    """Hidden layers and head: the dense layers, in the order in which their sizes fit."""
    before = len(problems)
    given = [("hidden", name) for name in spec.hidden or ()]
    given += [("head", spec.head)] if spec.head is not None else []
    for argument, name in given:
        _named(module, found, argument, name, nn.Linear, problems)
    if len(problems) > before:
        return (), ""
    dense = of_type(found, nn.Linear)
    if not dense:
        problems.append("no output layer: expected an nn.Linear after the recurrent layer")
        return (), ""
    if not recurrent:  # already a problem, and sizes can't be judged without it
        return (), ""
    last = recurrent_layers(module, recurrent)[-1]
    sizes = (last.hidden_size * (2 if last.bidirectional else 1), last.hidden_size)
    taken = {name for _, name in given}
    rest = [name for name, _ in dense if name not in taken]
    chains = [
        chain
        for chain in _orders(rest, spec)
        if _fits([linear(module, name) for name in chain], sizes)
    ]
    answering = [chain for chain in chains if _outputs(module, chain) in _head_sizes(labels)]
    if answering:
        return answering[0][:-1], answering[0][-1]
    if chains:
        head = module.get_submodule(chains[0][-1])
        single = "" if len(labels) != 2 else " (or 1, for two labels)"
        problems.append(
            f"labels don't match the head: labels has {len(labels)} names, {list(labels)!r:.200}; "
            f"{describe(chains[0][-1], head)} has {_outputs(module, chains[0])} outputs, expected "
            f"{len(labels)}{single}"
        )
    elif len(dense) == 1 or (spec.head is not None and spec.hidden is not None):
        chain = [*(spec.hidden or ()), spec.head or dense[0][0]]
        problems.append(
            "the dense layers don't fit: the readout has "
            f"{' or '.join(str(size) for size in dict.fromkeys(sizes))} units, then come "
            + ", ".join(describe(name, module.get_submodule(name)) for name in chain)
        )
    else:
        problems.append(
            f"{len(dense)} dense layers, {listing(dense)}, of which one must be the head and "
            "the others must follow one another from readout to head; say which with "
            "NetworkSpec(hidden=(...), head=...), hidden=() for none"
        )
    return (), ""


def _orders(rest: list[str], spec: NetworkSpec) -> Iterator[tuple[str, ...]]:
    """Orders in which dense layers may follow one another, the order of definition first."""
    if spec.hidden is not None:
        heads = [spec.head] if spec.head is not None else (rest if len(rest) == 1 else [])
        yield from ((*spec.hidden, head) for head in heads)
        return
    end = () if spec.head is None else (spec.head,)
    if len(rest) <= _MOST_LINEAR_LAYERS_TO_ORDER:
        yield from ((*order, *end) for order in permutations(rest))
    else:
        yield (*rest, *end)


def _fits(chain: list[nn.Linear], sizes: tuple[int, ...]) -> bool:
    """Whether each layer reads as many units as the one before it gives."""
    if not chain or chain[0].in_features not in sizes:
        return False
    pairs = zip(chain[:-1], chain[1:], strict=True)
    return all(one.out_features == other.in_features for one, other in pairs)


def _outputs(module: nn.Module, chain: Sequence[str]) -> int:
    return linear(module, chain[-1]).out_features


def _head_sizes(labels: Sequence[str]) -> tuple[int, ...]:
    return (2, 1) if len(labels) == 2 else (len(labels),)


def vector_size(module: nn.Module, parts: Parts, values: Tensor, spec: NetworkSpec) -> int:
    """Length of what stands for one token or step: its embedding, features or one-hot vector."""
    return _vector(module, parts.embedding, parts.recurrent, values, spec)[0]


def _vector(
    module: nn.Module,
    embedding: str | None,
    recurrent: tuple[str, ...],
    values: Tensor,
    spec: NetworkSpec,
) -> tuple[int, str]:
    """Its length, and what it is in words."""
    if embedding is not None:
        part = module.get_submodule(embedding)
        assert isinstance(part, nn.Embedding)
        return part.embedding_dim, describe(embedding, part)
    if values.is_floating_point():
        return values.shape[-1], f"features of shape {tuple(values.shape)}"
    size = recurrent_layers(module, recurrent)[0].input_size
    at_once = spec.feed in ("flat", "repeat")
    return size // values.shape[1] if at_once else size, "one-hot vectors"


def _size_problems(
    module: nn.Module,
    embedding: str | None,
    recurrent: tuple[str, ...],
    values: Tensor,
    spec: NetworkSpec,
    steps_known: bool,
) -> list[str]:
    """Whether inputs, embedding and recurrent layers fit together."""
    problems = []
    layers = recurrent_layers(module, recurrent)
    size, source = _vector(module, embedding, recurrent, values, spec)
    if source == "one-hot vectors" and values.numel() and int(values.max()) >= size:
        problems.append(
            f"token ids up to {int(values.max())} but no nn.Embedding, and "
            f"{describe(recurrent[0], layers[0])} is too small for their one-hot vectors"
        )
    first, steps = layers[0].input_size, values.shape[1]
    if first == size * steps or (not steps_known and size and first % size == 0):
        size = first  # all steps are read at once
    elif steps > 1:
        source += f" (or {steps} of them at once, {size * steps})"
    for name, layer in zip(recurrent, layers, strict=True):
        if layer.input_size != size:
            problems.append(
                f"{describe(name, layer)} reads vectors of {layer.input_size}, but before it come "
                f"{source}"
            )
        size = layer.hidden_size * (2 if layer.bidirectional else 1)
        source = describe(name, layer)
    return problems


def _dtype_problems(module: nn.Module, names: Sequence[str | None]) -> list[str]:
    parts = [module.get_submodule(name) for name in names if name is not None]
    problem = problem_of_kinds(parameter for part in parts for parameter in part.parameters())
    return [] if problem is None else [problem]
