"""Networks of images as MLflow models: files in tables and JSON, arrays in tensors, a server."""

from __future__ import annotations

import base64
import json

import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import pyfunc
from mlflow.exceptions import MlflowException
from torch import nn

import mlflow_rnnmod
from benchmarks.serving import served
from mlflow_rnnmod import composition
from mlflow_rnnmod.inputs import ImagePreparation
from mlflow_rnnmod.inputs.pixels import png_of
from mlflow_rnnmod.networks import Parent, Rows
from mlflow_rnnmod.networks.graph.reading import read_graph
from mlflow_rnnmod.pages.card import module_card, parent_card
from mlflow_rnnmod.pages.composite import Places, composite_page
from mlflow_rnnmod.storage import read_parent, write_parent
from tests.builders import tiny_modules
from tests.tracking.test_serving import ask, environment, with_package

LABELS = ("cat", "dog", "owl")


def parent_of_images(
    image: ImagePreparation | None = None,
    size: tuple[int, int] = (6, 5),
    channels: int = 3,
    labels: tuple[str, ...] = LABELS,
    seed: int = 0,
) -> Parent:
    """A small convolutional network with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU()
        ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, len(labels))
        network = nn.Sequential(*parts, *ends).eval()
        x = torch.randn(16, channels, *size)
    with torch.no_grad():
        network[-1].weight.mul_(8)
        network[-1].bias.copy_(-network(x).mean(0))  # or it would decide every answer
    return Parent(read_graph(network, Rows(x), lambda: network(x), labels)[0], image=image)


PREPARATION = ImagePreparation(mean=(0.4, 0.5, 0.6), std=0.25)
PIXELS = torch.randint(
    256, (8, 3, 6, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
)
FILES = [png_of(each) for each in PIXELS]
TEXTS = [base64.b64encode(file).decode() for file in FILES]


def logits(parent: Parent, pixels: torch.Tensor) -> torch.Tensor:
    """What somebody computes who trained the network."""
    mean, std = torch.tensor([0.4, 0.5, 0.6]).view(3, 1, 1), 0.25
    return parent.network(Rows((pixels.float() / 255 - mean) / std))


def test_the_preparation_lies_beside_the_weights(tmp_path):
    parent = parent_of_images(PREPARATION)
    assert parent.image == ImagePreparation((6, 5), 3, (0.4, 0.5, 0.6), 0.25)
    assert (parent.input_kind, parent.input_size) == ("images", (3, 6, 5))
    write_parent(parent, tmp_path)
    assert (tmp_path / "image.json").read_text() == parent.image.json
    again = read_parent(tmp_path, parent.digest)
    assert again.image == parent.image and again.tokenizers == parent.image.digest
    assert parent_of_images().digest == parent.digest  # as for a tokenizer
    (tmp_path / "image.json").write_text(parent.image.json.replace("0.25", "0.5"))
    with pytest.raises(ValueError, match=r"image\.json"):
        read_parent(tmp_path, parent.digest)


def test_a_module_is_not_put_on_a_parent_with_another_preparation(tmp_path):
    modules = tiny_modules(parent_of_images(PREPARATION))
    assert modules[0].contract.tokenizer == modules[0].parent.image.digest
    others = tiny_modules(parent_of_images(ImagePreparation(mean=0.1)))
    with pytest.raises(composition.IncompatibleModules, match="comes with 2 tokenizers"):
        composition.compose([modules[0], others[1]])


def test_files_answer_as_arrays_do(tmp_path):
    parent = parent_of_images(PREPARATION)
    composite = composition.compose(tiny_modules(parent))
    whole = composition.whole_parent(parent)
    expected = [LABELS[i] for i in logits(parent, PIXELS).argmax(1).tolist()]
    assert len(set(expected)) > 1
    for given in (FILES, TEXTS, list(PIXELS), PIXELS, PIXELS.numpy(), PIXELS.tolist()):
        assert whole.predict(given) == expected
        assert composite.predict(given) == composite.predict(FILES)
    for name, thing in (("parent", parent), ("composite", composite)):
        mlflow_rnnmod.save_model(thing, tmp_path / name)
        model = pyfunc.load_model(str(tmp_path / name))
        wanted = expected if name == "parent" else composite.predict(FILES)
        assert model.predict(pd.DataFrame({"image": FILES})).tolist() == wanted
        assert model.predict([{"image": file} for file in FILES]).tolist() == wanted
        scores = model.predict(pd.DataFrame({"image": FILES}), params={"scores": True})
        table = (whole if name == "parent" else composite).scores(FILES)
        assert np.allclose(scores[list(LABELS)], table, rtol=1e-5, atol=1e-5)
        with pytest.raises(MlflowException, match="image in row 1 is a broken image"):
            model.predict(pd.DataFrame({"image": [FILES[0], FILES[1][: len(FILES[1]) // 2]]}))


def test_arrays_are_tensors(tmp_path):
    parent = parent_of_images()
    values = torch.randn(7, 3, 6, 5)
    mlflow_rnnmod.save_model(parent, tmp_path / "model")
    model = pyfunc.load_model(str(tmp_path / "model"))
    expected = [LABELS[i] for i in parent.network(Rows(values)).argmax(1).tolist()]
    assert model.predict(values.numpy()).tolist() == expected
    assert composition.whole_parent(parent).predict(values) == expected
    with pytest.raises(MlflowException):
        model.predict(values[:, :, :5].numpy())
    with pytest.raises(MlflowException, match="finite numbers"):
        model.predict(np.full((1, 3, 6, 5), np.nan, dtype=np.float32))
    with pytest.raises(ValueError, match=r"expected an array of shape \(3, 6, 5\)"):
        composition.whole_parent(parent).predict(values[:, :1])


def test_each_parent_prepares_for_itself():
    small = parent_of_images(ImagePreparation(size=(6, 5), std=0.5, resize="bilinear"))
    large = parent_of_images(
        ImagePreparation(mean=0.5, resize="nearest"), (9, 8), labels=("fox", "elk"), seed=1
    )
    composite = composition.compose([*tiny_modules(small), *tiny_modules(large)])
    assert composite.input_size == (3, 0, 0)
    alone = composition.compose(tiny_modules(large), score=composite.score)
    files = [png_of(torch.nn.functional.interpolate(each[None], scale_factor=2)[0])
             for each in PIXELS]  # fmt: skip
    assert torch.allclose(composite.scores(files)[:, 3:], alone.scores(files), atol=1e-5)
    fixed = parent_of_images(ImagePreparation(), labels=("fox", "elk"), seed=2)
    both = composition.compose([*tiny_modules(small), *tiny_modules(fixed)])
    assert both.input_size == (3, 6, 5)
    with pytest.raises(ValueError, match=r"inputs\[0\] is an image of 12 x 10.*expected 6 x 5"):
        both.predict(files)
    grey = parent_of_images(ImagePreparation(resize="nearest"), channels=1, labels=("fox", "elk"))
    other = parent_of_images(ImagePreparation(), (9, 8), labels=("fox", "elk"))
    for wrong, joined in ((grey, small), (other, fixed)):
        modules = [tiny_modules(joined)[0], tiny_modules(wrong)[1]]
        with pytest.raises(composition.IncompatibleModules, match="differ in their size of images"):
            composition.compose(modules)
    with pytest.raises(composition.IncompatibleModules, match="differ in their input kind"):
        plain = parent_of_images(labels=("fox", "elk"))
        composition.compose([tiny_modules(small)[0], tiny_modules(plain)[1]])


def test_a_dense_network_of_images_takes_files():
    network = nn.Sequential(nn.Flatten(), nn.Linear(90, 6), nn.ReLU(), nn.Linear(6, 3)).eval()
    rows = Rows(torch.randn(16, 3, 6, 5))
    graph = read_graph(network, rows, lambda: network(rows.values), LABELS)[0]
    with pytest.raises(ValueError, match="makes 3 channels of an image, and .* reads 90 numbers"):
        Parent(graph, image=ImagePreparation(mean=(0.4, 0.5, 0.6)))
    parent = Parent(graph, image=ImagePreparation((6, 5), mean=(0.4, 0.5, 0.6), std=0.25))
    assert parent.input_size == (3, 6, 5)
    expected = [LABELS[i] for i in logits(parent, PIXELS).argmax(1).tolist()]
    assert composition.whole_parent(parent).predict(FILES) == expected


def test_preparations_belong_to_networks_of_images():
    from tests.builders import tiny_parent

    with pytest.raises(ValueError, match="image is given, and the network reads tokens"):
        Parent(tiny_parent().network, image=PREPARATION)
    with pytest.raises(ValueError, match=r"image= makes \(3, 7, 7\)"):
        parent_of_images(ImagePreparation(size=7))


def test_cards_say_how_images_are_handed_over():
    for image, kind, code in (
        (PREPARATION, "images (PNG or JPEG), 3 channels, 6 x 5", 'open("image.png", "rb").read()'),
        (None, "arrays of 3 channels, 6 x 5", 'np.full((1, 3, 6, 5), 0.5, dtype="float32")'),
    ):
        parent = parent_of_images(image)
        modules = tiny_modules(parent)
        for card in (
            parent_card(parent, "models:/p/1"),
            module_card(modules[0], "models:/m/1"),
            composite_page(composition.compose(modules), Places("models:/c/1")),
        ):
            assert code in card
        assert kind in parent_card(parent, "models:/p/1")
    assert "0.25" in parent_card(parent_of_images(PREPARATION), "models:/p/1")


@pytest.mark.slow
@pytest.mark.parametrize("image", [PREPARATION, None])
def test_a_server_takes_json(image, tmp_path):
    """Files as base64 text, which is how JSON holds a column of bytes; arrays as lists."""
    composite = composition.compose(tiny_modules(parent_of_images(image)))
    mlflow_rnnmod.save_model(composite, tmp_path / "model")
    with served(tmp_path / "model", tmp_path / "log", with_package(environment())) as address:
        if image is None:
            values = torch.randn(5, 3, 6, 5)
            expected = composite.predict(values)
            for key in ("inputs", "instances"):
                assert ask(address, {key: values.tolist()}) == (200, {"predictions": expected})
            assert ask(address, {"inputs": values[:, :2].tolist()})[0] == 400
            return
        expected = composite.predict(FILES)
        split = {"columns": ["image"], "data": [[text] for text in TEXTS]}
        for body in (
            {"dataframe_split": split},
            {"dataframe_records": [{"image": text} for text in TEXTS]},
            {"inputs": {"image": TEXTS}},
            {"inputs": TEXTS},
            {"instances": TEXTS},
        ):
            assert ask(address, body) == (200, {"predictions": expected})
        broken = base64.b64encode(FILES[0][: len(FILES[0]) // 2]).decode()
        status, answer = ask(address, {"inputs": {"image": [broken]}})
        assert status == 400 and "broken image" in json.dumps(answer)
