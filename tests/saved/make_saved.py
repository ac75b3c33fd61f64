"""Wrote the models and answers beside it, with the code of commit cc42f8b. Do not run it again.

What it wrote is what ``tests/test_saved.py`` holds newer code to; written by newer code, it would
hold it to nothing. It is kept to say how the files came about, and refuses to run elsewhere. It ran
from a clone of that commit, whose test helpers it uses::

    PYTHONPATH=. python tests/saved/make_saved.py <folder>

Parents are random, and their rows are labelled with their own answers, a tenth of them changed, so
that trunks, guesses, heads, calibrations and energies are all fitted to something.
"""

# What is imported here need not be there any more, and ruff sorts by what is there.
# ruff: noqa: I001

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
import yaml

COMMIT = "cc42f8b"
ENGINES = ("auto", "sliced", "threads", "stacked")
LABELS = ("german", "irish", "zulu")
OTHERS = ("french", "greek")
NOISE = 1e-3  # what scores may change by without another answer


# --- parents and their modules ---


def parent_of(kind: str = "tokens", labels: tuple[str, ...] = LABELS, **config: Any) -> Any:
    """A small random parent; lists end with the last label."""
    from tests.builders import tiny_parent

    config = {"scale": 1.1, **config}  # larger weights make rounding count for more
    output = config.get("output", "label")
    if output in ("tags", "list"):
        config = {"readout": "all_steps", **config}
    if output == "list":
        given = {"feed": "repeat", "steps": 6, "output_steps": 4, "end_label": labels[-1]}
        config = {**given, **config}
    return tiny_parent(kind, labels, **config)


def rows_of(parent: Any, count: int, seed: int) -> Any:
    """Random rows with the parent's own answers as targets, a tenth of them changed."""
    from tests.builders import tiny_rows, tiny_texts

    config, draw = parent.network.config, torch.Generator().manual_seed(seed)
    if parent.input_kind == "text":
        rows = parent.network.prepare(parent.tokenizer(tiny_texts(count, seed)))
    else:
        rows = parent.network.prepare(tiny_rows(parent, count, seed=seed))
    with torch.no_grad():
        logits = parent.network(rows)
    if config.output == "multilabel":
        changed = torch.rand(logits.shape, generator=draw) < 0.1
        return replace(rows, targets=(logits > 0) ^ changed)
    targets = logits.argmax(dim=-1)
    other = torch.randint(len(parent.labels), targets.shape, generator=draw)
    targets = torch.where(torch.rand(targets.shape, generator=draw) < 0.1, other, targets)
    if config.stepwise:
        targets[~parent.network.answered(rows)] = -1
    if config.output == "list":
        end = parent.labels.index(config.end_label)
        targets[(targets == end).cumsum(dim=1) - (targets == end).long() > 0] = -1
    return replace(rows, targets=targets)


def taken_apart(parent: Any, **settings: Any) -> tuple[Any, ...]:
    """The parent's modules, by the whole decomposition."""
    from mlflow_rnnmod import DecompositionConfig, decompose
    from tests.translators import tiny_pairs

    config = DecompositionConfig(**{"removal": 0.3, "unrolled_steps": 4, **settings})
    make = tiny_pairs if parent.translates else rows_of
    train, validation = (make(parent, count, seed) for count, seed in ((160, 1), (100, 2)))
    return decompose(parent, train, validation, config=config).modules


@cache
def base(name: str) -> tuple[Any, ...]:
    """Modules that several models are made of."""
    from tests.translators import tiny_translator

    tags = {"output": "tags"}
    made = {
        "text": lambda: parent_of("text"),
        "text again": lambda: parent_of("text", cell="gru", seed=5),
        "others": lambda: parent_of("text", OTHERS, cell="gru", recurrent=((7,),), seed=1),
        "ids": lambda: parent_of(cell="gru", recurrent=((10,),)),
        "tags": lambda: parent_of(recurrent=((6, 5), (6, 5)), seed=11, scale=1.6, **tags),
        "text tags": lambda: parent_of("text", ("noun", "verb"), cell="gru", seed=3, **tags),
        "several": lambda: parent_of(cell="gru", output="multilabel", readout="max_valid"),
        "list": lambda: parent_of(
            labels=("head", "hand", "foot", "end"), cell="rnn_tanh", output="list", seed=4
        ),
        "two languages": lambda: tiny_translator(languages=("de", "fr")),
        "italian": lambda: tiny_translator(
            "lstm", ("it",), ((8,),), (8,), joint=False, bridge="state", packed=False, side="left"
        ),
        "ids of languages": lambda: tiny_translator(
            "lstm", text=False, encoder=((4, 4), (4, 4)), decoder=(7, 6), bridge_from="each"
        ),
    }
    return taken_apart(made[name]())


def joint_rows(*names: str) -> tuple[list[str], list[str]]:
    """Texts with labels, those that each of some text parents answers."""
    from tests.builders import tiny_texts

    inputs, labels = [], []
    for number, name in enumerate(names):
        parent = base(name)[0].parent
        texts = tiny_texts(40, seed=30 + number)
        with torch.no_grad():
            found = parent.network(parent.tokenizer(texts)).argmax(dim=-1).tolist()
        inputs += texts
        labels += [parent.labels[i] for i in found]
    return inputs, labels


def composites() -> dict[str, Any]:
    """What is saved of composites, by name; each is made when it is called."""
    import mlflow_rnnmod
    from mlflow_rnnmod import compose
    from tests.builders import ODD_LABELS
    from tests.translators import tiny_translator

    def of(*names: str, **settings: Any) -> Any:
        return partial(lambda: compose([m for n in names for m in base(n)], **settings))

    def joint(*names: str) -> Any:
        modules = [module for name in names for module in base(name)]
        return compose(modules, calibrate_on=joint_rows(*names))

    def apart(parent: Any, **settings: Any) -> Any:
        return compose(taken_apart(parent, **settings))

    def several_joint() -> Any:
        rows = rows_of(base("several")[0].parent, 60, 40)
        right = [[LABELS[i] for i in row.nonzero()[:, 0].tolist()] for row in rows.targets]
        ids = [v[:n].tolist() for v, n in zip(rows.values, rows.lengths.tolist(), strict=True)]
        return compose(base("several"), calibrate_on=(ids, right))

    def edited() -> Any:
        found = mlflow_rnnmod.add(compose(base("text")), *base("others"))
        found = mlflow_rnnmod.replace(found, "zulu", base("text again")[2])
        return mlflow_rnnmod.remove(found, "greek")

    words = {"kind": "text", "output": "list", "labels": ("head", "hand", "end"), "seed": 7}
    topics = {"kind": "text", "output": "multilabel", "labels": ("sport", "art")}
    four = ("a", "b", "c", "d")
    return {
        "label_text": of("text"),
        "label_two_parents_open": of("text", "others"),
        "label_two_parents_joint": lambda: joint("text", "others"),
        "label_one_parent_joint": lambda: joint("text"),
        "label_same_labels_twice": lambda: compose([*base("text")[:2], base("text again")[2]]),
        "label_edited": edited,
        "label_logit": of("ids", score="logit"),
        "label_probability": of("ids", score="probability"),
        "label_single": lambda: compose(base("ids")[:1]),
        "label_odd_labels": lambda: apart(parent_of("text", ODD_LABELS[1:5], recurrent=((6,),))),
        "label_flat": lambda: apart(parent_of(feed="flat", steps=6, readout="last_step")),
        "label_features": lambda: apart(
            parent_of("features", cell="rnn_relu", hidden=hidden(), readout="max_valid", seed=6)
        ),
        "label_features_double": lambda: apart(
            parent_of("features", dtype=torch.float64, recurrent=((6, 6),), readout="final_state")
        ),
        "label_packed": lambda: apart(
            parent_of(packed=True, readout="max_valid", recurrent=((6, 6),))
        ),
        "label_left": lambda: apart(
            parent_of("text", side="left", readout="mean_steps", steps=8, seed=5)
        ),
        "label_unrolled": lambda: apart(parent_of(), variant="unrolled"),
        "label_gates": lambda: apart(parent_of(cell="gru"), gates="separate"),
        "label_unrolled_gates": lambda: apart(
            parent_of(recurrent=((6, 4),)), variant="unrolled", gates="separate"
        ),
        "label_shared_trunks": lambda: apart(parent_of(labels=four), trunks=2),
        "label_paper": lambda: apart(parent_of(), rule="paper", repairs="none"),
        "label_reference": lambda: apart(parent_of(cell="rnn_tanh"), rule="reference"),
        "label_nothing_removed": lambda: apart(parent_of(cell="gru"), removal=0.0),
        "multilabel_thresholds": of("several", thresholds={"irish": 0.75, "zulu": -0.5}),
        "multilabel_joint": several_joint,
        "tags_ids": of("tags"),
        "tags_text": of("text tags"),
        "tags_words": of("text tags"),
        "tags_unrolled": lambda: apart(
            parent_of(output="tags", cell="gru", seed=8), variant="unrolled"
        ),
        "list_all": of("list"),
        "list_some": lambda: compose(base("list")[:2], thresholds={"hand": 0.25}),
        "mixed_label_tags": of("text", "text tags"),
        "mixed_label_list": lambda: compose([*base("text"), *taken_apart(parent_of(**words))]),
        "mixed_multilabel_list": lambda: compose(
            [*taken_apart(parent_of(**topics)), *taken_apart(parent_of(**words))]
        ),
        "translation_text": of("two languages"),
        "translation_two_parents": of("two languages", "italian"),
        "translation_ids": of("ids of languages"),
        "translation_unrolled_gates": lambda: apart(
            tiny_translator(languages=("de", "it"), seed=2), variant="unrolled", gates="separate"
        ),
    }


def hidden() -> tuple[Any, ...]:
    """Two dense layers."""
    from mlflow_rnnmod.network import HiddenLayer

    return (HiddenLayer(7, "relu"), HiddenLayer(6, "tanh"))


def modules() -> dict[str, Any]:
    """What is saved of modules: standalone, but for the one whose name says otherwise."""
    return {
        "module_label": lambda: base("text")[1],
        "module_tags": lambda: base("tags")[0],
        "module_list": lambda: base("list")[1],
        "module_translation": lambda: base("two languages")[1],
        "module_two_tokenizers": lambda: base("italian")[0],
        "module_unrolled": lambda: taken_apart(parent_of(), variant="unrolled")[2],
        "module_by_reference": lambda: base("text")[2],
    }


def parents() -> dict[str, Any]:
    """What is saved of parents."""
    return {
        "parent_text": lambda: base("text")[0].parent,
        "parent_features": lambda: parent_of(
            "features", cell="rnn_relu", hidden=hidden(), readout="max_valid", seed=6
        ),
        "parent_tags": lambda: base("tags")[0].parent,
        "parent_multilabel": lambda: base("several")[0].parent,
        "parent_translator": lambda: base("two languages")[0].parent,
        "parent_translator_ids": lambda: base("ids of languages")[0].parent,
    }


# --- inputs ---


def inputs_for(thing: Any) -> list[Any]:
    """Some inputs as plain data, with those at the edge of what can be read."""
    from tests.builders import tiny_inputs
    from tests.translators import sentences, word_encoder

    parent = getattr(thing, "parent", None) or (
        thing.modules[0].parent if hasattr(thing, "modules") else thing
    )
    if parent.translates:
        texts = [*sentences(6, seed=3)[0], "seven elephants"]
        if parent.tokenizer is not None:
            return [*texts, ""]
        return word_encoder().ids(texts)
    found = tiny_inputs(parent, 9, seed=77)
    if parent.input_kind == "text":
        return [*found, "Schröder", "Ω 7", ""]
    if parent.input_kind == "tokens":
        return [*found, [3], []]
    return [np.round(item, 3).tolist() for item in found]


def frame_of(column: str, inputs: list[Any]) -> pd.DataFrame:
    """The inputs as MLflow takes them."""
    return pd.DataFrame({column: pd.Series(inputs, dtype=object)})


# --- answers ---


def plain(found: Any) -> Any:
    """Anything that answers as JSON types: NaN as null, infinities by name."""
    if isinstance(found, torch.Tensor | np.ndarray):
        if found.dtype in (torch.float32, np.float32):  # as few digits as single out the number
            found = np.asarray(found)
            return plain([float(str(x)) for x in found] if found.ndim == 1 else list(found))
        return plain(found.tolist())
    if isinstance(found, pd.DataFrame):
        return {name: plain(found[name].tolist()) for name in found.columns}
    if isinstance(found, dict):
        return {name: plain(value) for name, value in found.items()}
    if isinstance(found, list | tuple):
        return [plain(item) for item in found]
    if isinstance(found, float) and not math.isfinite(found):
        return None if math.isnan(found) else str(found)
    return found.item() if isinstance(found, np.generic) else found


def clear(composite: Any, inputs: list[Any]) -> list[Any]:
    """The inputs whose answer no rounding can change."""
    draw = torch.Generator().manual_seed(0)
    scores = composite.scores(inputs, engine="loop")
    said = composite.answers(scores)
    sure = [True] * len(inputs)
    for _ in range(20):
        noise = torch.randn(scores.shape, generator=draw) * NOISE
        for row, answer in enumerate(composite.answers(scores + noise.to(scores))):
            sure[row] &= answer == said[row]
    return [item for item, fine in zip(inputs, sure, strict=True) if fine]


def limit_of(composite: Any, inputs: list[Any]) -> float:
    """A limit of rejection that falls between two scores, about half of the inputs on each side."""
    scores = composite.scores(inputs, engine="loop").amax(dim=-1).flatten()
    best = scores[scores.isfinite()].sort().values
    half = len(best) // 2
    gaps = best.diff()[half - 2 : half + 2]
    place = half - 2 + int(gaps.argmax())
    return round(float(best[place] + best[place + 1]) / 2, 4)


def called(thing: Any, verbs: list[Any], method: str, *arguments: Any, **given: Any) -> dict:
    """A call with what came of it; ``verbs`` are first done to the model."""
    import mlflow_rnnmod

    for verb, *rest in verbs:
        thing = getattr(mlflow_rnnmod, verb)(thing, *rest)
    found = plain(getattr(thing, method)(*arguments, **given))
    return {"verbs": verbs, "method": method, "given": given, "answer": found}


def calls_of(composite: Any, inputs: list[Any]) -> list[dict]:
    """What a composite says, in its own ways."""
    call = partial(called, composite)
    labels = list(composite.labels)
    if composite.output == "translation":
        return [
            call([], "predict", inputs),
            call([], "predict", inputs, target=labels[-1]),
            call([], "predict", inputs, target=labels[0], beams=3),
            call([["select", labels[-1]]], "predict", inputs),
        ]
    loop = {"engine": "loop"}
    found = [call([], "scores", inputs, **loop), call([], "predict", inputs, **loop)]
    if composite.rivals and composite.output != "list":
        limit = limit_of(composite, inputs)
        rejecting = {"reject_below": limit, "reject_label": "?"}
        found.append(call([], "predict", inputs, **rejecting, **loop))
    if len(labels) > 1:
        verbs = [["select", *labels[:-3:-1]]]
        found.append(call(verbs, "scores", inputs, **loop))
        found.append(call([["remove", labels[0]]], "scores", inputs, **loop))
    told = composite.scores(inputs, **loop)
    for engine in ENGINES:  # they add up in other orders, as other machines do
        other = composite.scores(inputs, engine=engine)
        torch.testing.assert_close(other, told, rtol=2e-6, atol=2e-6, equal_nan=True)
    return found


def served(folder: Path, frame: pd.DataFrame, asked: list[dict]) -> list[dict]:
    """What MLflow's own interface says, with some params each."""
    model = mlflow.pyfunc.load_model(str(folder))
    return [
        {"params": params, "answer": plain(model.predict(frame, params=params))} for params in asked
    ]


def params_of(output: str, labels: list[str], calls: list[dict]) -> list[dict]:
    """Params to ask MLflow's interface with."""
    if output == "translation":
        return [{}, {"target": labels[0]}, {"target": labels[-1], "beams": 3}]
    found: list[dict] = [{}, {"scores": True}]
    for call in calls:
        if "reject_below" in call["given"]:
            limit = call["given"]["reject_below"]
            found.append({"scores": True, "reject_below": limit, "reject_label": "?"})
    return found


def described(module: Any) -> dict[str, Any]:
    """What is known of a module."""
    return {
        "label": module.label,
        "parent": module.parent.digest,
        "trunk": module.trunk.digest,
        "contract": module.contract.to_dict(),
        "figures": plain(dict(module.figures)),
    }


def of_composite(composite: Any, folder: Path) -> dict[str, Any]:
    """All that is kept of a composite, or of the composite of one module."""
    inputs, column = inputs_for(composite), composite.input_kind
    if folder.parent.name == "tags_words":
        inputs, column = [[text, "and", text[:3]] for text in inputs], "words"
    if composite.output != "translation":
        inputs = clear(composite, inputs)
    assert len(inputs) > 5, len(inputs)
    calls = calls_of(composite, inputs)
    asked = params_of(composite.output, list(composite.labels), calls)
    return {
        "input": composite.input_kind,
        "column": column,
        "output": composite.output,
        "labels": list(composite.labels),
        "score": composite.score,
        "modules": [described(module) for module in composite.modules],
        "inputs": inputs,
        "calls": calls,
        "served": served(folder, frame_of(column, inputs), asked),
    }


@torch.no_grad()
def of_parent(parent: Any, folder: Path) -> dict[str, Any]:
    """All that is kept of a parent."""
    inputs, config = inputs_for(parent), parent.network.config
    if parent.input_kind == "features":
        rows = parent.network.prepare(rows_of(parent, 6, 50))
        rows = replace(rows, values=torch.tensor(np.round(rows.values.numpy(), 3)))
    elif parent.input_kind == "text":
        rows = parent.network.prepare(parent.tokenizer(inputs))
    else:
        from mlflow_rnnmod.decomposition.pairs import padded

        rows = parent.network.prepare(padded(inputs, config.pad_index))
    found = {
        "input": parent.input_kind,
        "column": parent.input_kind,
        "output": config.output,
        "labels": list(parent.labels),
        "digest": parent.digest,
        "tokenizers": parent.tokenizers,
        "inputs": inputs,
        "values": plain(rows.values),
        "lengths": plain(rows.lengths),
    }
    asked = params_of(config.output, list(parent.labels), [])
    found["served"] = served(folder, frame_of(parent.input_kind, inputs), asked)
    if parent.translates:
        told = torch.tensor([[config.starts[-1], 5, 9]]).expand(len(rows), -1)
        return {**found, "told": plain(told), "logits": plain(parent.network(rows, told))}
    return {**found, "logits": plain(parent.network(rows))}


# --- files ---


def save(thing: Any, folder: Path, **options: Any) -> None:
    """Save a model without the copy of the package, which newer code has to stand in for.

    The files that say how to install its environment are left to a few: loading reads none of them.
    """
    import mlflow_rnnmod

    mlflow_rnnmod.save_model(thing, folder, **options)
    shutil.rmtree(folder / "code", ignore_errors=True)
    if folder.parent.name not in ("label_text", "module_label", "parent_text"):
        for name in ("conda.yaml", "python_env.yaml", "requirements.txt"):
            (folder / name).unlink()
    path = folder / "MLmodel"
    content = yaml.safe_load(path.read_text())
    for flavor in content["flavors"].values():
        flavor.pop("code", None)
    sizes = [file.stat().st_size for file in folder.rglob("*") if file.is_file()]
    content["model_size_bytes"] = sum(sizes) - path.stat().st_size
    path.write_text(yaml.safe_dump(content, default_flow_style=False))


def main(root: Path) -> None:
    """Write everything into ``root``."""
    import mlflow_rnnmod
    from mlflow_rnnmod import compose
    from mlflow_rnnmod.flavor import signature_for

    clone = Path(mlflow_rnnmod.__file__).parent
    command = ["git", "-C", str(clone), "describe", "--always", "--dirty", "--abbrev=7"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if found != COMMIT:
        raise SystemExit(f"The code is of commit {found}; expected {COMMIT} and nothing newer.")
    for kind, things in (("composite", composites()), ("module", modules()), ("parent", parents())):
        for name, make in things.items():
            folder = root / name / "model"
            shutil.rmtree(root / name, ignore_errors=True)
            thing = make()
            options: dict[str, Any] = {}
            if kind == "module":
                options["standalone"] = name != "module_by_reference"
            if name == "tags_words":
                options["signature"] = signature_for("text", "tags", words=True)
            save(thing, folder, **options)
            if kind == "parent":
                found = of_parent(thing, folder)
            else:
                found = of_composite(compose([thing]) if kind == "module" else thing, folder)
            if name == "module_by_reference":
                found["needs"] = "parent_text"
            content = json.dumps({"kind": kind, **found}, ensure_ascii=False, allow_nan=False)
            (root / name / "answers.json").write_text(content + "\n", encoding="utf-8")
            print(name, len(found["inputs"]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]).absolute())
