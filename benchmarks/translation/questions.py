"""The three questions asked of translators: rows of BLEU, in points."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks.published import delta
from benchmarks.translation.parents import Trained, Translators
from benchmarks.translation.study import Bleu, TranslationStudy, bleu
from mlflow_rnnmod.composition import compose, replace

# There is nothing to refit or to calibrate.
REPAIRS = ("none", "all")
RULES = ("sensitivity", "random", "none")
FOLDER = "tatoeba"
Told = Callable[[str], None]
Done = set[tuple]


def rq1_rows(
    study: TranslationStudy,
    fixed: dict[str, Any],
    rules: Sequence[str],
    removals: Sequence[float],
    wanted: Sequence[str],
    draws: int,
    done: Done,
    told: Told,
) -> Iterator[dict[str, Any]]:
    """One row for each language, rule, removal and repairs, with a random mask of the same size.

    Args:
        study: the translator and its statistics.
        fixed: what all rows have in common.
        rules: names of rules.
        removals: shares of the decoder's units.
        wanted: names of repairs; others than ``"none"`` and ``"all"`` do nothing here.
        draws: random masks that a random row is the mean of.
        done: keys ``(rule, removal, repairs, matched)`` of rows that exist already.
        told: called with what is being done.
    """
    repairs = [name for name in REPAIRS if name in wanted]
    settings: list[tuple[str, float, str | None]] = [("none", 0.0, None)]
    for share, rule in itertools.product(removals, rules):
        settings += [(rule, share, None), ("random", share, rule)]
    # Rules that remove as many units for each language share their random controls.
    known: dict[tuple, tuple[list[Bleu], list[dict[str, float]], float]] = {}
    for rule, share, matched in settings:
        for repair in repairs:
            if (rule, share, repair, matched) in done:
                continue
            started = time.perf_counter()
            removed = study.removed(matched or rule, share)
            counts = tuple(int(mask.sum()) for units in removed for mask in units.values())
            key = (repair, counts) if matched else (repair, rule, share)
            if key not in known:
                told(f"{rule} {share:.0%}, repairs {repair}")
                masks = [removed] if matched is None else study.random(removed, draws)
                # Nothing removed answers as the parent, token for token: tests show it.
                found = [
                    study.composed(mask, repair == "all") if share else study.parent_bleu
                    for mask in masks
                ]
                sizes = study.sizes([m.trunk for m in study.modules(masks[0]).values()])
                known[key] = (found, sizes, (time.perf_counter() - started) / len(masks))
            found, sizes, seconds = known[key]
            for size, code in zip(sizes, study.trained.parent.labels, strict=True):
                score = sum(each.languages[code] for each in found) / len(found)
                yield _rq1_row(study, fixed, code, score, size) | {
                    "rule": rule,
                    "removal": share,
                    "matched": matched,
                    "repairs": repair,
                    "seconds": seconds,
                }


def _rq1_row(
    study: TranslationStudy, fixed: dict[str, Any], code: str, score: float, size: dict[str, float]
) -> dict[str, Any]:
    of_parent, dataset = study.parent_bleu.languages[code], f"{study.trained.data.name}/{code}"
    return {
        **fixed,
        "dataset": dataset,
        "paper_delta": delta(dataset, fixed["variant"], fixed["cell"], fixed["layers"]),
        "metric": "bleu",
        "signature": study.parent_bleu.signature,
        "parent_score": of_parent,
        "score": score,
        "delta": score - of_parent,
        "control_delta": 0.0,
        "net": score - of_parent,
        "actual_removal": 1 - size["units_kept"],
        **size,
    }


class Studies:
    """Each translator watched once."""

    def __init__(self, variant: str, gates: str) -> None:
        self.variant, self.gates = variant, gates
        self._found: dict[str, TranslationStudy] = {}

    def of(self, trained: Trained) -> TranslationStudy:
        """The study of a translator."""
        digest = trained.parent.digest
        if digest not in self._found:
            self._found[digest] = TranslationStudy.start(
                trained, trained.seed, self.variant, self.gates
            )
        return self._found[digest]

    def modules(self, trained: Trained, rule: str, removal: float) -> dict[str, Any]:
        """A translator's modules by language."""
        study = self.of(trained)
        return study.modules(study.removed(rule, removal if rule != "none" else 0.0))


def rq2_rows(
    translators: Translators,
    studies: Studies,
    removal: float,
    cell: str,
    layers: int,
    seed: int,
    done: Done,
    told: Told,
) -> Iterator[dict[str, Any]]:
    """Each pair of languages: two modules against a translator trained from scratch for both.

    Yields:
        a row for each pair and rule that is not in ``done`` (keys ``(pair, rule)``).
    """
    told("translator of all languages")
    parent = translators.trained(FOLDER, None, cell, layers, seed)
    for pair in itertools.combinations(parent.data.targets, 2):
        name = "+".join(pair)
        if all((name, rule) in done for rule in RULES):
            continue
        told(f"{name}: from scratch")
        scratch = translators.trained(FOLDER, pair, cell, layers, seed, scratch=True)
        right = studies.of(scratch).parent_bleu
        for rule in RULES:
            if (name, rule) in done:
                continue
            told(f"{name}: {rule}")
            modules = studies.modules(parent, rule, removal)
            found = bleu(compose([modules[code] for code in pair]), scratch.data)
            yield {
                "pair": name,
                **common(rule, removal, found),
                "scratch_score": right.mean,
                "scratch_languages": right.languages,
                "scratch_seconds": scratch.seconds,
            }


def common(rule: str, removal: float, found: Bleu) -> dict[str, Any]:
    """What rows of all questions but the first have."""
    return {
        "rule": rule,
        "removal": removal if rule != "none" else 0.0,
        "repairs": "all",
        "metric": "bleu",
        "signature": found.signature,
        "score": found.mean,
        "languages": found.languages,
        "score_strategy": "routed",
    }


def rq3_rows(
    translators: Translators,
    studies: Studies,
    removal: float,
    cells: Sequence[str],
    layers: int,
    seed: int,
    done: Done,
    told: Told,
) -> Iterator[dict[str, Any]]:
    """Each language's module of the worst translator replaced by the best one's.

    Worst and best by BLEU on validation. The figure stands against the worst translator itself.
    """
    found = []
    for cell in cells:
        told(f"translator of all languages, {cell}")
        found.append(translators.trained(FOLDER, None, cell, layers, seed))
    ranked = sorted(found, key=lambda t: t.metric)
    worst, best = ranked[0], ranked[-1]
    right = studies.of(worst).parent_bleu
    for rule in RULES:
        missing = [code for code in worst.data.targets if (code, rule) not in done]
        if not missing:
            continue
        composite = compose(studies.modules(worst, rule, removal).values())
        strong = studies.modules(best, rule, removal)
        told(f"{rule}: nothing replaced")
        unreplaced = bleu(composite, worst.data)
        for code in missing:
            told(f"{rule}: {code}")
            # Only this language's translations change.
            changed = bleu(replace(composite, code, strong[code]), worst.data, [code])
            languages = unreplaced.languages | changed.languages
            yield {
                "pair": code,
                **common(rule, removal, Bleu(languages, changed.signature)),
                "worst": f"{worst.cell} {layers} seed {worst.seed}",
                "best": f"{best.cell} {layers} seed {best.seed}",
                "scratch_score": right.mean,
                "scratch_languages": right.languages,
                "unreplaced_score": unreplaced.mean,
            }
