"""Joint rows for composites of every kind of answer."""

from __future__ import annotations

import math

import pytest
import torch

from mlflow_rnnmod.composition import Composite, compose, remove
from mlflow_rnnmod.composition.joint import parts_of
from tests.builders import tiny_texts
from tests.composition.test_kinds import TEXTS, everything, mixed


def calibrated_loss(composite: Composite, rows: list, truth: list) -> float:
    """Cross-entropy of a softmax over scores, over all steps with a truth."""
    scores = composite.scores(rows)
    total, count = 0.0, 0
    for row, wanted in enumerate(truth):
        for step, label in enumerate(wanted):
            if label in composite.labels:
                z = scores[row, step]
                total += float(torch.logsumexp(z, 0) - z[composite.labels.index(label)])
                count += 1
    return total / count


def test_joint_rows_of_tags():
    composite = everything("tags")
    texts = tiny_texts(60)
    truth = [[("a", "b", "c", None, "other")[ord(c) % 5] for c in text] for text in texts]
    joint = compose(composite.modules, calibrate_on=(texts, truth))
    assert joint.score == "joint" and joint.base == "margin"
    assert calibrated_loss(joint, texts, truth) < calibrated_loss(composite, texts, truth)
    with pytest.raises(ValueError, match="row 0 has 1 labels and 5 steps"):
        compose(composite.modules, calibrate_on=(["abcde"], [["a"]]))
    with pytest.raises(ValueError, match="no step with one of the labels"):
        compose(composite.modules, calibrate_on=(["ab"], [["q", None]]))


def test_joint_rows_of_lists_are_fitted_by_the_chance_anywhere():
    composite = remove(everything("list"), "c")
    truth = [[y for y in "ab" if ord(text[0]) % 2 == ord(y) % 2] for text in TEXTS]
    joint = compose(composite.modules, calibrate_on=(TEXTS, truth))

    def loss(found: Composite) -> float:
        total = 0.0
        for column, label in enumerate(found.labels):
            none = (1 - found.scores(TEXTS)[..., column].double().sigmoid()).prod(1)
            for chance, wanted in zip(none.tolist(), truth, strict=True):
                total -= math.log(1 - chance if label in wanted else chance)
        return total

    assert joint.score == "joint" and loss(joint) < loss(composite)


def test_joint_rows_of_several_labels_are_fitted_label_by_label():
    composite = everything("multilabel")
    truth = [[y for y in "ab" if ord(text[0]) % 2 == ord(y) % 2] for text in TEXTS]
    joint = compose(composite.modules, calibrate_on=(TEXTS, truth))
    pair = compose(
        composite.modules[:1], calibrate_on=(TEXTS, [[y for y in t if y == "a"] for t in truth])
    )
    assert joint.parameters["scales"]["a"] == pair.parameters["scales"]["a"]
    assert joint.parameters["scales"]["c"] == [1.0, 0.0]  # nothing to learn from
    scores = composite.scores(TEXTS)
    scale, offset = joint.parameters["scales"]["a"]
    torch.testing.assert_close(joint.scores(TEXTS)[:, 0], scores[:, 0] * scale + offset)
    with pytest.raises(ValueError, match=r"labels \['q'\], which no module"):
        compose(composite.modules, calibrate_on=(["ab"], [["q"]]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tags", "list"])
@pytest.mark.parametrize("score", ["open", "margin"])
def test_joint_rows_across_kinds(kind, score):
    both, _, _ = mixed(kind, score)
    texts = tiny_texts(90)
    truth = [both.labels[ord(text[0]) % 5] for text in texts]
    index = torch.tensor([both.labels.index(y) for y in truth])

    def loss(composite: Composite) -> float:
        return float(torch.nn.functional.cross_entropy(composite.scores(texts), index))

    joint = compose(both.modules, score=score, calibrate_on=(texts, truth))
    assert joint.output == "label" and loss(joint) < loss(both)
    found = joint.scores(TEXTS)
    parts = parts_of(compose(both.modules, score=score), TEXTS)
    fitted = torch.tensor([joint.parameters["scales"][label] for label in joint.labels])
    expected = (parts.values * fitted[:, :-1]).sum(-1) + fitted[:, -1] + parts.fixed
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
