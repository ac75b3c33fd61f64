"""Train two recurrent networks, take them apart in MLflow, and build new models from the parts.

Read `quickstart` at the end first: it is the whole story, each chapter is one of the functions
above it. The network is the ordinary Lightning model of classifier.py, the data are in texts.py,
surnames.py and clinc.py, and stories.py says which labels play which part.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import mlflow
import pandas as pd
import pytorch_lightning as L
import torch
from classifier import Classifier
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.loggers import MLFlowLogger
from stories import Story, load
from tables import accuracy, console, heading, show_answers, show_comparison, show_modules
from texts import Splits, TextData, build_tokenizer

import mlflow_rnnmod
from lightning_callbacks import ModuleDecomposition
from mlflow_rnnmod.pages.markdown import model_page
from mlflow_rnnmod.tracking.logged import page_address


@dataclass(frozen=True)
class Settings:
    """How long to train, and where to log."""

    epochs: int
    seed: int
    experiment: str


@dataclass(frozen=True)
class Trained:
    """A trained network, as it is used without any of this."""

    model: Classifier
    data: TextData

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label of each text."""
        self.model.eval()
        encoded = self.data.encode(texts)
        with torch.inference_mode():
            best = torch.cat([self.model(x).argmax(dim=1) for x in encoded.split(512)])
        return [self.data.labels[index] for index in best.tolist()]


# ------------------------------------------------------------------------------------ training


def train_parent(
    name: str, splits: Splits, labels: Sequence[str], settings: Settings
) -> tuple[Trained, ModuleDecomposition]:
    """Train a network; at the end of the training the callback puts its modules into MLflow."""
    L.seed_everything(settings.seed, verbose=False)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    data = TextData(splits, tokenizer, labels)
    model = Classifier(tokenizer.get_vocab_size(), len(labels))

    modules = ModuleDecomposition(
        labels=labels,
        tokenizer=tokenizer,
        registered_model_prefix=name,
        strict=True,  # by default a failed decomposition is a warning, and the training stands
    )
    logger = MLFlowLogger(
        experiment_name=settings.experiment, run_name=name, tracking_uri=mlflow.get_tracking_uri()
    )
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        callbacks=[modules, RichProgressBar()],
        logger=logger,
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    return Trained(model, data), modules


def train_from_scratch(splits: Splits, labels: Sequence[str], settings: Settings) -> Trained:
    """The same training without callback and logger, to compare with."""
    L.seed_everything(settings.seed, verbose=False)
    tokenizer = build_tokenizer(splits.train.texts, splits.tokens)
    data = TextData(splits, tokenizer, labels)
    model = Classifier(tokenizer.get_vocab_size(), len(labels))
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        callbacks=[RichProgressBar()],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(model, data)
    return Trained(model, data)


# ------------------------------------------------------------------------------------ chapters


def uris(parent: ModuleDecomposition, labels: Sequence[str]) -> list[str]:
    """Registered versions of some modules, such as `models:/surnames.german/1`."""
    return [parent.logged.uris[label] for label in labels]


def compose_all(first: ModuleDecomposition, trained: Trained, splits: Splits) -> None:
    """All modules of one parent, beside that parent."""
    heading("Compose: all modules of one parent")
    labels = first.decomposition.parent.labels
    whole = mlflow_rnnmod.compose(uris(first, labels))

    test = splits.test.only(labels)
    composed, original = whole.predict(test.texts), trained.predict(test.texts)
    show_comparison(
        f"{len(test)} test texts of {len(labels)} labels",
        {
            "the parent": [accuracy(original, test)],
            "its modules, composed": [accuracy(composed, test)],
            "same answer": [sum(map(str.__eq__, composed, original)) / len(test)],
        },
        ["share"],
    )


def reuse(story: Story, first: ModuleDecomposition, splits: Splits, settings: Settings) -> None:
    """Some of a parent's modules make a smaller model."""
    heading(f"Reuse: a model for {', '.join(story.reused)}, without training")
    small = mlflow_rnnmod.compose(uris(first, story.reused))

    scratch = train_from_scratch(splits.only(story.reused), story.reused, settings)
    test = splits.test.only(story.reused)
    show_comparison(
        f"{len(test)} test texts of {len(story.reused)} labels",
        {
            "composed of modules": [accuracy(small.predict(test.texts), test)],
            "trained from scratch": [accuracy(scratch.predict(test.texts), test)],
        },
        ["accuracy"],
    )


def add(
    story: Story,
    first: ModuleDecomposition,
    second: ModuleDecomposition,
    splits: Splits,
    settings: Settings,
) -> None:
    """A label that the first parent never saw, from the second parent."""
    heading(f"Add: {story.added} from the other parent, without training")
    labels = (*story.first, story.added)
    whole = mlflow_rnnmod.compose(uris(first, story.first))
    larger = mlflow_rnnmod.add(whole, *uris(second, [story.added]))

    scratch = train_from_scratch(splits.only(labels), labels, settings)
    test = splits.test.only(labels)
    answers = {
        "first parent's modules": whole.predict(test.texts),
        f"... and {story.added}": larger.predict(test.texts),
        "trained from scratch": scratch.predict(test.texts),
    }
    show_comparison(
        f"{len(test)} test texts of {len(labels)} labels",
        {
            name: [accuracy(found, test), accuracy(found, test, story.added)]
            for name, found in answers.items()
        },
        ["accuracy", f"recall of {story.added}"],
    )


def replace(
    story: Story, first: ModuleDecomposition, second: ModuleDecomposition, splits: Splits
) -> mlflow_rnnmod.Composite:
    """One weak module gives way to another parent's; nothing else changes."""
    heading(f"Replace: the first parent was shown {story.examples} texts of {story.scarce} only")
    before = mlflow_rnnmod.compose(uris(first, story.first))
    after = mlflow_rnnmod.replace(before, story.scarce, *uris(second, [story.scarce]))

    test = splits.test.only(story.first)
    show_comparison(
        f"{len(test)} test texts of {len(story.first)} labels",
        {
            name: [accuracy(found, test), accuracy(found, test, story.scarce)]
            for name, found in {
                "before": before.predict(test.texts),
                f"{story.scarce} replaced": after.predict(test.texts),
            }.items()
        },
        ["accuracy", f"recall of {story.scarce}"],
    )
    return after


def log_and_load(
    story: Story,
    composite: mlflow_rnnmod.Composite,
    second: ModuleDecomposition,
    splits: Splits,
) -> None:
    """The result is an MLflow model like any other."""
    heading("Log it, register it, load it with mlflow.pyfunc")
    composite = mlflow_rnnmod.add(composite, *uris(second, [story.added]))
    test = splits.test.only(composite.labels)
    with mlflow.start_run(run_name="composite") as run:
        info = mlflow_rnnmod.log_model(
            composite,
            name="composite",
            registered_model_name=f"{story.name}-composite",
            evaluate_on=(test.texts, test.labels),
            evaluated_on=f"test texts of {story.name}",
        )
    page = model_page(run.info.experiment_id, info.model_id)
    console.print(f"its page: {page_address(mlflow.get_tracking_uri(), page)}", soft_wrap=True)
    console.print(f"logged as {info.model_uri}, version {info.registered_model_version} of")
    console.print(f"models:/{story.name}-composite; its modules:")
    for source in composite.sources:
        console.print(f"  {source['label']}: {source['uri']}, parent {source['parent'][:12]}")

    # Less familiar than 5 % of the validation texts are, and no module knows the text.
    validation = splits.validation.only(composite.labels)
    threshold = composite.familiarity(validation.texts).quantile(0.05).item()

    loaded = mlflow.pyfunc.load_model(info.model_uri)
    frame = pd.DataFrame({"text": story.asked})
    answers = loaded.predict(frame, params={"reject_below": threshold})
    known = composite.familiarity(story.asked).tolist()
    show_answers(f"reject_below={threshold:.3f}", story.asked, answers, known)


# ------------------------------------------------------------------------------------ the story


def quickstart(story: Story, splits: Splits, settings: Settings) -> None:
    """Two parents, their modules, and what can be made of them."""
    heading(f"Train {story.name}: {len(story.first)} labels")
    few = splits.only(story.first).scarce(story.scarce, story.examples)
    trained, first = train_parent(story.name, few, story.first, settings)
    show_modules(first)

    heading(f"Train more-{story.name}: {len(story.second)} labels")
    _, second = train_parent(
        f"more-{story.name}", splits.only(story.second), story.second, settings
    )
    show_modules(second)

    compose_all(first, trained, splits)
    reuse(story, first, splits, settings)
    add(story, first, second, splits.scarce(story.scarce, story.examples), settings)
    better = replace(story, first, second, splits)
    log_and_load(story, better, second, splits)


def prepare() -> None:
    """Leave the screen to progress bars and tables."""
    torch.set_num_threads(1)  # a second thread makes networks as small as these slower
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for message in (".*does not have many workers.*", ".*isinstance.treespec, LeafSpec.*"):
        warnings.filterwarnings("ignore", message=message)
    for name in ("pytorch_lightning", "lightning", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)


@click.command(context_settings={"show_default": True, "max_content_width": 100})
@click.option(
    "--dataset",
    type=click.Choice(["surnames", "clinc_oos"]),
    default="surnames",
    help="Surnames by language (no download), or queries to a voice assistant.",
)
@click.option(
    "--label",
    type=click.Choice(["domain", "intent"]),
    help="What clinc_oos is labelled with: 10 domains (the default where the data has them) or 150 "
    "intents.",
)
@click.option(
    "--data-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with clinc_oos/{train,validation,test}.jsonl.gz, rows with the fields text, "
    "intent and domain. Without it the Hub's clinc/clinc_oos is read (intents only).",
)
@click.option("--tracking-uri", default="sqlite:///mlflow.db", help="The MLflow store.")
@click.option("--epochs", type=click.IntRange(1), default=12, help="Epochs of each training.")
@click.option(
    "--share",
    type=click.FloatRange(0.05, 1),
    default=1.0,
    help="How much of the data to take; less is faster, and worse.",
)
@click.option("--seed", type=int, default=0, help="Of the trainings, and the surnames' split.")
def main(
    dataset: str,
    label: str | None,
    data_dir: Path | None,
    tracking_uri: str,
    epochs: int,
    share: float,
    seed: int,
) -> None:
    """Train two networks, take them apart, and build new models from the parts.

    Two small LSTMs are trained on some labels each. A Lightning callback takes them apart into one
    module for each label and registers the modules in MLflow. Then modules are composed, reused,
    added and replaced, without training, beside models that are trained from scratch; the result
    is logged, loaded with mlflow.pyfunc and asked. Every number is computed in this run.
    """
    prepare()
    started = time.monotonic()
    mlflow.set_tracking_uri(tracking_uri)
    story, splits = load(dataset, label, data_dir, share, seed)
    settings = Settings(epochs, seed, experiment=f"quickstart-{story.name}")
    mlflow.set_experiment(settings.experiment)

    quickstart(story, splits, settings)

    heading("Look at it")
    console.print(f"Done in {time.monotonic() - started:.0f} s. Now: [bold]make ui[/bold]")
    console.print(
        f"and open the experiment {settings.experiment}, its models and the model registry. "
        "MLflow 3 may open in GenAI mode: switch to 'Model training' at the top left."
    )


if __name__ == "__main__":
    main()
