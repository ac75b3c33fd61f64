"""What fits together: every incompatibility of some modules, found from their contracts alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from mlflow_rnnmod.answers.joining import joined, reason_against
from mlflow_rnnmod.decomposition.module import Contract


class IncompatibleModules(ValueError):
    """Modules that can't be composed; the message lists every reason."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("These modules can't be composed: " + "; ".join(problems) + ".")


def find_problems(contracts: Iterable[tuple[str, Contract, str]]) -> list[str]:
    """Every reason why modules don't fit together; empty where they do.

    Args:
        contracts: for each module a name to show (its URI, or its label), its contract, and its
            parent's digest.
    """
    found = list(contracts)
    if not found:
        return ["there is no module; expected at least one"]
    problems = []
    counts = Counter(contract.label for _, contract, _ in found)
    for label, count in counts.items():
        if count > 1:
            names = [name for name, contract, _ in found if contract.label == label]
            problems.append(
                f"{count} modules answer for label {label!r} ({', '.join(names)}); expected one "
                "module a label: use replace() to swap one for another"
            )
    problems += _different(found, "input kind", lambda c: c.input)
    answer = joined(contract for _, contract, _ in found)
    if answer is None:
        kinds = {contract.output for _, contract, _ in found}
        problems += _different(
            found,
            "output kind",
            lambda c: c.output,
            f"kinds that go together, but {reason_against(kinds)}",
        )
    ends = [(name, c) for name, c, _ in found if c.label == c.end_label]
    if answer is not None and answer.ends and len(ends) > 1:
        told = ", ".join(f"{name} ({c.label!r})" for name, c in ends)
        problems.append(f"{len(ends)} modules end lists: {told}; expected one at the most")
    if answer is not None and answer.each_step:
        # Cut at different places, they would have different steps to answer.
        problems += _different(found, "number of steps", lambda c: c.steps)
    size = found[0][1].reads.common_size(parents=len({parent for _, _, parent in found}))
    if size is not None and len({c.input for _, c, _ in found}) == 1:
        joint = found[0][1].reads.joint_size([c.input_size for _, c, _ in found])
        problems += _different(found, size, lambda c: c.reads.settled(c.input_size, joint))
    for which, digest_of in (("tokenizers", _reads), ("target tokenizers", _writes)):
        tokenizers: dict[str, set[str | None]] = {}
        for _, contract, parent in found:
            tokenizers.setdefault(parent, set()).add(digest_of(contract))
        for parent, digests in tokenizers.items():
            if len(digests) > 1:
                shown = sorted(str(digest)[:12] for digest in digests)
                problems.append(
                    f"parent {parent[:12]} comes with {len(digests)} {which} "
                    f"({', '.join(shown)}); expected one"
                )
    return problems + _vocabularies(found)


def doubts(contracts: Iterable[tuple[str, Contract, str]]) -> list[str]:
    """What nobody can tell of modules that fit; empty where all is known."""
    known = _known_vocabularies(contracts)
    if len(known) < 2 or any(known.values()):
        return []
    return [
        f"the modules take token ids, and nothing says that these mean the same to all "
        f"{len(known)} parents. Decompose with vocabulary= (a name, or the tokens), which modules "
        "carry, or with the tokenizer, so that they take text"
    ]


def _known_vocabularies(
    contracts: Iterable[tuple[str, Contract, str]],
) -> dict[str, dict[str, list[str]]]:
    """For each parent that takes token ids the names of its vocabulary, and which modules say so.

    Modules of one parent have one vocabulary, whichever of them says it.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for name, contract, parent in contracts:
        if contract.reads.ids and contract.tokenizer is None:
            own = found.setdefault(parent, {})
            if contract.vocabulary is not None:
                own.setdefault(contract.vocabulary, []).append(name)
    return found


def _vocabularies(found: list[tuple[str, Contract, str]]) -> list[str]:
    """Token ids that mean something else to another parent, or nobody knows what."""
    known = _known_vocabularies(found)
    named: dict[str, list[str]] = {}
    for each in known.values():
        for vocabulary, names in each.items():
            named.setdefault(vocabulary, []).extend(names)
    if len(named) > 1:
        shown = "; ".join(f"{key[:20]}: {', '.join(names)}" for key, names in named.items())
        return [
            f"the modules take token ids of different vocabularies ({shown}); expected one. "
            "Decompose with the tokenizer, so that modules take text and each parent reads it with "
            "its own"
        ]
    unknown = [parent for parent, each in known.items() if not each]
    if not named or not unknown:
        return []
    names = [name for name, _, parent in found if parent in unknown]
    return [
        f"{', '.join(names)} take token ids, and nothing says of which vocabulary; expected that "
        f"of the others, {next(iter(named))[:20]!r}. Decompose with vocabulary=, which needs no "
        "training"
    ]


def _reads(contract: Contract) -> str | None:
    return contract.tokenizer


def _writes(contract: Contract) -> str | None:
    return None if contract.target is None else contract.target.get("tokenizer")


def _different(
    found: list[tuple[str, Contract, str]],
    what: str,
    value: Callable[[Contract], object],
    expected: str = "the same in all",
) -> list[str]:
    by_value: dict[object, list[str]] = {}
    for name, contract, _ in found:
        by_value.setdefault(value(contract), []).append(name)
    if len(by_value) == 1:
        return []
    shown = "; ".join(f"{key}: {', '.join(names)}" for key, names in by_value.items())
    return [f"the modules differ in their {what} ({shown}); expected {expected}"]
