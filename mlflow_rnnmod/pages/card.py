"""Cards: what a module, a parent or a composite is, in Markdown, for people.

They are the description of a model in MLflow (the tag ``mlflow.note.content``, cut by MLflow at
8000 characters) and its file ``card/README.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_rnnmod.answers import Answer, answer_of
from mlflow_rnnmod.inputs import density_of, input_of
from mlflow_rnnmod.pages.markdown import escape, fenced, fit, inline, link, table
from mlflow_rnnmod.pages.wording import (
    SHOWN,
    answer_words,
    figure,
    figure_rows,
    input_words,
    label_words,
    percent,
    plural,
    removal_words,
)

if TYPE_CHECKING:
    from mlflow_rnnmod.composition import Composite
    from mlflow_rnnmod.decomposition.module import Module
    from mlflow_rnnmod.networks import Parent

LONGEST = 8000
_TOGETHER = "Modules of it together"
_MIXED = (
    "; modules that answer each step count by their best one, less the logarithm of the number of "
    "steps"
)
_LIKELY = (
    "Likelihoods of the labels' inputs vote with the parents; to see what they change, compose the "
    'modules with `score="open"` (without them) and `score="likelihood"` (nothing but them).'
)
_COUPLED = (
    "Labels of parents that knew fewer labels than the others are tied to these: how likely all "
    "that such a parent knew is, the others say, by their own labels and by what these leave; the "
    "parent shares it out."
)
FIGURES = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "agreement": "agrees with the parent",
    "accuracy": "accuracy",
    "exact": "all labels of a row right",
    "bleu": "BLEU",
    "parent_bleu": "BLEU of the parent",
}
SIZES = {
    "units_kept": "units kept",
    "weights_kept": "weights kept",
    "recurrent_weights_kept": "recurrent weights kept",
    "multiply_adds_kept": "multiply-adds kept",
    "jaccard": "overlap with the other modules (Jaccard)",
}


def module_card(
    module: Module,
    uri: str,
    others: Sequence[str] = (),
    parent_link: str | None = None,
    standalone: bool = False,
    server: str | None = None,
) -> str:
    """The card of one module.

    Args:
        module: the module.
        uri: what it can be loaded by, ``models:/...`` or ``runs:/...``.
        others: URIs of a few modules to show it composed with.
        parent_link: where the parent's page is, relative to MLflow's own (``#/experiments/...``).
        standalone: whether the parent goes along.
        server: the server that the card is for; ids of another one are told to be so.

    Returns:
        Markdown of at most 8000 characters.
    """
    parent, contract = module.parent, module.contract
    opening = (
        f"# {escape(module.label)}\n\n{_question(module)} It was cut out of a trained network "
        + ("without training, and works alone or with modules of this and other parents.")
    )
    facts = [
        ("label", f"{escape(module.label)} ({contract.index + 1} of {len(contract.labels)})"),
        ("input", input_words(contract.input, contract.input_size, contract.steps)),
        ("parent", f"{parent.network.words()}, {_parent_name(parent, parent_link)}"),
        *answer_words(contract.answer, contract.mask_steps),
        *_made(module.made),
        *_sizes(module),
        ("likelihood", _likelihood(module)),
    ]
    return fit(
        [
            opening,
            _figures(module.figures, figure_rows(module.made), contract.answer.counted),
            "## How it was made\n\n" + fact_table(facts),
            _layers(module),
            use(uri, contract.input, contract.input_size, contract.answer),
            _compose([uri, *others], contract.input, contract.input_size),
            _alone(parent) if standalone else _by_reference(parent, server),
        ],
        LONGEST,
    )


def parent_card(
    parent: Parent,
    uri: str,
    figures: Mapping[str, float] | None = None,
    rows: str | None = None,
    modules: str | None = None,
) -> str:
    """The card of a parent.

    ``figures``: its own, ``accuracy`` for one; shares from 0 to 1; ``modules``: URI that stands for
    all modules made of it (``runs:/<run>``).
    """
    config = parent.network.config
    opening = (
        f"# Parent network {parent.digest[:12]}\n\nA trained network and what its modules are "
        f"masks over: they hold no weights of their own, and load this model's. **As long as a "
        "module is in use, keep this model**, or export the module first."
    )
    facts = [
        ("network", parent.network.words()),
        ("digest", inline(parent.digest)),
        ("input", input_words(parent.input_kind, parent.input_size, config.steps)),
        ("weights", f"{parent.bytes / 2**20:.2f} MiB"),
        ("labels", label_words(parent.labels)),
        *answer_words(config.answer),
    ]
    if parent.tokenizer is not None:
        facts.insert(3, ("tokenizer", inline(parent.tokenizer.digest)))
    if parent.image is not None:
        facts.insert(3, ("preparation", inline(parent.image.json)))
    if parent.target_tokenizer is not None:
        facts.insert(4, ("tokenizer of translations", inline(parent.target_tokenizer.digest)))
    sections = [opening]
    if figures:
        sections.append(_figures(figures, rows, config.answer.counted))
    sections.append("## What it is\n\n" + fact_table(facts))
    sections.append(use(uri, parent.input_kind, parent.input_size, config.answer))
    if modules:
        sections.append(_compose([modules], parent.input_kind, parent.input_size, _TOGETHER))
    return fit(sections, LONGEST)


def registered_card(
    label: str | None,
    kind: str,
    size: Any,
    uri: str,
    others: Sequence[str],
    output: str = "label",
) -> str:
    """The description of a registered model: what holds for all its versions, so no figures.

    ``others``: URIs of a few other modules of the same parent.
    """
    answer = answer_of(output)
    if label is None:
        opening = (
            "Trained networks, each of which was taken apart into the modules registered beside "
            "it. Modules hold no weights of their own, and load their network's: **as long as a "
            "module is in use, keep its network**, or export the module first."
        )
        return fit(
            [opening, use(uri, kind, size, answer), _compose(others, kind, size, _TOGETHER)],
            LONGEST,
        )
    opening = (
        f"# {escape(label)}\n\nModules that {answer.task.format(label=escape(label))}, cut out of "
        "trained networks without training. Each version is one module; its page and that of its "
        "source model say what it was made of, and how well it answers on which rows."
    )
    return fit(
        [opening, use(uri, kind, size, answer), _compose([uri, *others], kind, size)], LONGEST
    )


def _likelihood(module: Module) -> str:
    """What a module knows of its label's inputs, and what is stored of them."""
    if module.likelihood is None:
        return "none: it is compared with modules of other parents without"
    words = density_of(module.likelihood.space).words(module.likelihood)
    return escape(f"{words}; {module.likelihood.bytes / 1000:.1f} kB", 400)


def _question(module: Module) -> str:
    """What a module is for."""
    contract, count = module.contract, len(module.contract.labels)
    answer, ends = contract.answer, contract.label == contract.end_label
    return (answer.end_question if ends else answer.question).format(
        label=escape(module.label),
        labels=count,
        others=count - 1,
        languages=plural("language", count),
    )


def joined(composite: Composite) -> str:
    """How a composite comes to its answers."""
    end, limits = composite.end_label, composite.parameters.get("thresholds", {})
    told = ", ".join(f"{escape(y, 40)} {limits[y]:.4g}" for y in list(limits)[:SHOWN])
    mixed = len({module.contract.output for module in composite.modules}) > 1
    words = composite.answer.joins.format(
        score=f"(score: {inline(composite.score)})",
        mixed=_MIXED if mixed else "",
        until="" if end is None else f", up to {inline(end)}",
        limits=f"thresholds are 0, but: {told}" if told else "all thresholds are 0",
    )
    words = f"{words} {_COUPLED}" if composite.coupled else words
    return f"{words} {_LIKELY}" if composite.likely else words


def _made(made: Mapping[str, Any]) -> list[tuple[str, str]]:
    repairs = made.get("repairs") or ()
    repairs = (repairs,) if isinstance(repairs, str) else repairs
    facts = [
        ("units removed", removal_words(made)),
        ("repairs", ", ".join(escape(r, 40) for r in repairs) or "none"),
    ]
    rows = made.get("rows")
    if isinstance(rows, Mapping):
        facts += [
            (f"{escape(name, 40)} on", escape(words, 300))
            for name, words in rows.items()
            if name != "figures"
        ]
    known = {"rule", "removal", "repairs", "rows"}
    for name, value in made.items():
        if name not in known and isinstance(value, str | int | float | bool):
            shown = f"{value:.4g}" if isinstance(value, float) else value
            facts.append((escape(name.replace("_", " "), 40), escape(shown)))
    return facts


def _sizes(module: Module) -> list[tuple[str, str]]:
    facts = [("units kept", f"{module.trunk.kept} of {module.trunk.total}")]
    facts += [
        (words, percent(module.figures[name]))
        for name, words in SIZES.items()
        if name in module.figures and name != "units_kept"
    ]
    return facts


def _figures(figures: Mapping[str, float], rows: str | None, counted: str) -> str:
    shown = [
        (words, figure(name, figures[name])) for name, words in FIGURES.items() if name in figures
    ]
    if "support" in figures:
        shown.append((counted, f"{figures['support']:.0f}"))
    words = (
        f"Measured on {escape(rows, 300)}." if rows else "The rows behind them are not recorded."
    )
    if not shown:
        return "## Figures\n\nNone were measured."
    return "## Figures\n\n" + words + "\n\n" + fact_table(shown, " r")


def fact_table(facts: Sequence[tuple[str, str]], right: str = "") -> str:
    """Names and what they stand for; MLflow's descriptions leave no room between columns."""
    return table(("", ""), [(f"{name}&emsp;", words) for name, words in facts], right)


def _layers(module: Module) -> str:
    rows = []
    for name, mask in module.trunk.keep.items():
        kept, total = int(mask.sum()), mask.numel()
        full = round(20 * kept / total)
        bar = "█" * full + "░" * (20 - full) + "&emsp;"
        rows.append((f"{inline(name)}&emsp;", bar, f"{kept}&emsp;", str(total)))
    return "## Units by layer\n\n" + table(("layer", "", "kept&emsp;", "of"), rows, "  rr")


def _parent_name(parent: Parent, parent_link: str | None) -> str:
    digest = parent.digest[:12]
    if parent_link:
        return link(digest, parent_link)
    return inline(f"models:/{parent.model_id}") if parent.model_id else inline(digest)


def use(uri: str, kind: str, size: Any, answer: Answer, labels: Sequence[str] = ()) -> str:
    """How a model is loaded and asked: a section with a snippet of Python."""
    table = input_of(kind).table(size)
    params = answer.example_params(labels).items()
    asked = ", ".join(f"{_quoted(n)}: {_quoted(v) if type(v) is str else v}" for n, v in params)
    code = (
        "import mlflow, mlflow_rnnmod\n"
        f"import {'numpy as np' if table.startswith('np.') else 'pandas as pd'}\n\n"
        f"model = mlflow.pyfunc.load_model({_quoted(uri)})\n"
        f"model.predict({table})\n"
        f"model.predict({table}, params={{{asked}}})"
    )
    return "## Use it\n\n" + fenced(code)


def _compose(
    uris: Sequence[str], kind: str, size: Any, title: str = "Compose it with others"
) -> str:
    lines = "".join(f"    {_quoted(uri)},\n" for uri in uris)
    code = (
        "import mlflow_rnnmod\n\n"
        f"model = mlflow_rnnmod.compose([\n{lines}])\n"
        f"model.predict({input_of(kind).example(size)})"
    )
    return f"## {title}\n\n" + fenced(code)


def _by_reference(parent: Parent, server: str | None) -> str:
    where = f"the model {inline('models:/' + parent.model_id)}" if parent.model_id else "its parent"
    elsewhere = parent.tracking_uri
    if parent.model_id and server is not None and elsewhere not in (None, server):
        where += f" **on the server {inline(elsewhere)}**, whose id that is,"
    return (
        "## Where its weights are\n\n"
        f"This module is a mask; its weights are those of {where}, digest "
        f"{inline(parent.digest)}. It is found there by itself. Should that model have to go, "
        "write the module with its parent first: `mlflow_rnnmod.export(uri, path)`."
    )


def _alone(parent: Parent) -> str:
    return (
        "## Where its weights are\n\n"
        f"This module stands alone: its parent, digest {inline(parent.digest)}, is beside it, and "
        "nothing else is needed to load it."
    )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
