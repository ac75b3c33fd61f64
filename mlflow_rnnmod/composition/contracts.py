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
    return problems


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
