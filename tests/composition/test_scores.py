"""Score strategies against formulas by hand, and what joint rows are good for."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from mlflow_rnnmod.composition import SCORES, Composite, compose
from mlflow_rnnmod.composition.scores import ENERGY_WEIGHT, default_score, fit_joint
from mlflow_rnnmod.decomposition.module import Head, Module
from mlflow_rnnmod.networks import Rows, masked
from tests.builders import tiny_inputs, tiny_modules, tiny_parent, tiny_texts


def pieces(module: Module, item) -> dict[str, float]:
    """What a module's scores are made of, for one input, from the masked parent."""
    parent = module.parent
    if parent.tokenizer is not None:
        rows = parent.tokenizer([item])
    else:
        rows = Rows(torch.as_tensor(item)[None])
    rows = parent.network.prepare(rows)
    with torch.no_grad():
        readout = masked(parent.network, module.trunk).readout(rows)[0].double()
        logits = parent.network.output(readout.to(parent.network.dtype)).double()
        unmasked = parent.network(rows)[0].double()
    own = module.contract.index
    odds = float(logits[own]) - math.log(
        sum(math.exp(z) for i, z in enumerate(logits.tolist()) if i != own)
    )

    def margin(head: Head) -> float:
        raw = odds
        if head.weight is not None:
            raw += sum(w * x for w, x in zip(head.weight.tolist(), readout.tolist(), strict=True))
            raw += head.bias
        return head.calibration.scale * raw + head.calibration.offset

    energy = math.log(sum(math.exp(z) for z in unmasked.tolist()))
    return {
        "odds": odds,
        "logit": float(logits[own]),
        "margin": margin(module.head),
        "open": margin(module.open_head),
        "energy": (energy - module.energy.mean) / module.energy.deviation,
    }


def by_hand(score: str, found: dict[str, float], weight: float = ENERGY_WEIGHT) -> float:
    return {
        "margin": found["margin"],
        "logit": found["logit"],
        "probability": 1 / (1 + math.exp(-found["odds"])),
        "open": -math.log1p(math.exp(-found["open"])) + weight * found["energy"],
    }[score]


@pytest.mark.parametrize("score", ["margin", "open", "logit", "probability"])
@pytest.mark.parametrize("kinds", [("text",), ("text", "text"), ("tokens",), ("features",)])
def test_scores_are_their_formulas(score, kinds):
    modules = []
    for seed, kind in enumerate(kinds):
        labels = tuple(f"{seed}-{label}" for label in ("a", "b", "c"))
        cell = ("lstm", "gru")[seed % 2]
        modules += tiny_modules(tiny_parent(kind, labels, cell, seed=seed), seed=seed)
    composite = compose(modules, score=score)
    inputs = tiny_inputs(modules[0].parent, 8)
    found = composite.scores(inputs)
    assert found.shape == (8, len(modules))
    for row, item in enumerate(inputs):
        for column, module in enumerate(modules):
            expected = by_hand(score, pieces(module, item))
            assert float(found[row, column]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_the_weight_of_the_energy_is_a_parameter():
    assert 0.25 <= ENERGY_WEIGHT <= 0.5
    modules = tiny_modules(tiny_parent("text"))
    texts = tiny_texts(5)
    for weight in (0.0, 2.0):
        found = Composite(modules, "open", {"energy_weight": weight}).scores(texts)
        for row, text in enumerate(texts):
            expected = [by_hand("open", pieces(module, text), weight) for module in modules]
            assert found[row].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_joint_scales_the_open_head_and_the_energy():
    modules = tiny_modules(tiny_parent("text"))
    texts = tiny_texts(6)
    scales = {m.label: [0.5 + i, 0.3 * i, 2.0 - i] for i, m in enumerate(modules)}
    found = Composite(modules, "joint", {"base": "open", "scales": scales}).scores(texts)
    for row, text in enumerate(texts):
        for column, module in enumerate(modules):
            plain = by_hand("open", pieces(module, text), 0.0)
            energy = by_hand("open", pieces(module, text), 1.0) - plain
            one, other, offset = scales[module.label]
            expected = one * plain + other * energy + offset
            assert float(found[row, column]) == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("base", ["margin", "logit"])
def test_joint_is_a_scale_and_an_offset_on_another_score(base):
    modules = tiny_modules(tiny_parent("text"))
    texts = tiny_texts(6)
    scales = {m.label: [0.5 + i, 2.0 - i] for i, m in enumerate(modules)}
    joint = Composite(modules, "joint", {"base": base, "scales": scales}).scores(texts)
    plain = Composite(modules, base).scores(texts)
    pairs = torch.tensor([scales[m.label] for m in modules])
    torch.testing.assert_close(joint, plain * pairs[:, 0] + pairs[:, 1], rtol=1e-5, atol=1e-5)


def test_names():
    names = {"margin", "open", "hybrid", "bayes", "coupled", "coupled_open"}
    names |= {"likelihood", "joint", "logit", "probability"}
    assert set(SCORES) == names
    assert all(name == strategy.name and strategy.about for name, strategy in SCORES.items())
    one, other = tiny_parent("text", seed=1), tiny_parent("text", ("x", "y"), seed=2)
    assert default_score(tiny_modules(one)) == compose(tiny_modules(one)).score == "margin"
    both = (*tiny_modules(one), *tiny_modules(other))
    assert default_score(both) == compose(both).score == "open"


def test_an_unknown_score_is_refused():
    modules = tiny_modules(tiny_parent())
    with pytest.raises(ValueError, match="score='best', expected one of .*'margin'"):
        compose(modules, score="best")
    with pytest.raises(ValueError, match=r'score="joint" needs calibrate_on'):
        compose(modules, score="joint")


def cross_entropy(scores: torch.Tensor, targets: torch.Tensor) -> float:
    return float(F.cross_entropy(scores.double(), targets))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    modules=st.integers(2, 6),
    rows=st.integers(1, 80),
    spread=st.sampled_from([0.01, 1.0, 40.0]),
)
@example(seed=3845, modules=2, rows=2, spread=0.01)
def test_joint_fits_beat_any_common_temperature(seed, modules, rows, spread):
    """Scales of their own cost a penalty, so they are taken only where they pay for it."""
    draw = torch.Generator().manual_seed(seed)
    targets = torch.randint(modules, (rows,), generator=draw)
    scores = torch.randn(rows, modules, generator=draw) + 1.5 * F.one_hot(targets, modules)
    scores = spread * (scores + 2 * torch.randn(modules, generator=draw))
    pairs = torch.tensor(fit_joint(scores, targets)).double()
    assert (pairs[:, 0] > 0).all() and pairs.isfinite().all()
    found = cross_entropy(scores.double() * pairs[:, 0] + pairs[:, 1], targets)
    unit = float(scores.double().std(correction=0)) if rows * modules > 1 else 1.0
    temperatures = [x / max(unit, 1e-6) for x in (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)]
    plain = min(cross_entropy(t * scores.double(), targets) for t in (1.0, *temperatures))
    assert found <= plain + 1e-4


def test_joint_rows_mend_a_module_that_shouts():
    draw = torch.Generator().manual_seed(0)
    targets = torch.randint(4, (400,), generator=draw)
    scores = torch.randn(400, 4, generator=draw) + 3 * F.one_hot(targets, 4)
    scores[:, 1] = 5 * scores[:, 1] + 9
    before = float((scores.argmax(1) == targets).double().mean())
    pairs = torch.tensor(fit_joint(scores[:200], targets[:200]))
    mended = scores * pairs[:, 0] + pairs[:, 1]
    after = float((mended[200:].argmax(1) == targets[200:]).double().mean())
    assert before < 0.5 and after > 0.9


def test_one_row_and_one_module_are_no_reason_to_fail():
    assert fit_joint(torch.tensor([[2.0]]), torch.tensor([0]))[0][0] > 0
    assert all(math.isfinite(x) for pair in fit_joint(torch.zeros(3, 2), torch.tensor([0, 1, 1]))
               for x in pair)  # fmt: skip


def two_parents() -> tuple[Module, ...]:
    one = tiny_parent("text", ("a", "b", "c"), seed=1)
    other = tiny_parent("text", ("d", "e"), "gru", seed=2)
    return (*tiny_modules(one), *tiny_modules(other))


def test_calibrate_on_fits_what_the_composite_compares():
    modules, texts = two_parents(), tiny_texts(80)
    plain = compose(modules)
    draw = torch.Generator().manual_seed(3)
    truth = [plain.labels[i] for i in torch.randint(5, (80,), generator=draw)]
    joint = compose(modules, calibrate_on=(texts, truth))
    assert joint.score == "joint" and joint.parameters["base"] == "open"
    assert [step["verb"] for step in joint.recipe] == ["compose", "calibrate"]
    assert joint.recipe[1]["rows"] == 80
    targets = torch.tensor([plain.labels.index(y) for y in truth])
    before = min(cross_entropy(t * plain.scores(texts), targets) for t in (0.01, 0.1, 0.3, 1.0))
    assert cross_entropy(joint.scores(texts), targets) <= before + 1e-4
    assert plain.score == "open" and not plain.parameters and len(plain.recipe) == 1
    chosen = compose(modules, score="logit", calibrate_on=(texts, truth))
    assert chosen.parameters["base"] == "logit"
    named = compose(modules, score="joint", calibrate_on=(texts, truth))
    assert named.parameters == joint.parameters


def test_calibrating_again_starts_from_the_score_underneath():
    from mlflow_rnnmod.composition import calibrated

    modules, texts = two_parents(), tiny_texts(40)
    truth = [("a", "b", "c", "d", "e")[i % 5] for i in range(40)]
    once = compose(modules, calibrate_on=(texts, truth))
    twice = calibrated(once, texts, truth)
    assert twice.parameters["base"] == "open"
    assert twice.parameters["scales"] == once.parameters["scales"]
    assert [step["verb"] for step in twice.recipe] == ["compose", "calibrate", "calibrate"]


@pytest.mark.parametrize(
    ("inputs", "labels", "said"),
    [
        (["a", "b"], ["a", "zebra"], r"labels \['zebra'\], which no module answers for"),
        (["a", "b"], ["a"], "2 inputs and 1 labels; expected as many"),
        ([], [], "at least one"),
    ],
)
def test_joint_rows_that_do_not_fit(inputs, labels, said):
    with pytest.raises(ValueError, match=said):
        compose(two_parents(), calibrate_on=(inputs, labels))


@pytest.mark.parametrize(
    ("rows", "labels", "said"),
    [
        (6, "abcde", "6 answers: scales fitted on these rows did no better"),
        (80, "ab", r"80 answers: no row of calibrate_on has \['c', 'd', 'e'\]: nothing was"),
    ],
)
def test_calibrate_on_is_left_out_where_it_does_not_help(rows, labels, said):
    modules, texts = two_parents(), tiny_texts(rows)
    plain = compose(modules)
    with pytest.warns(UserWarning, match=said):
        joint = compose(
            modules, calibrate_on=(texts, [labels[i % len(labels)] for i in range(rows)])
        )
    assert "note" in joint.recipe[1]
    torch.testing.assert_close(joint.scores(texts), plain.scores(texts))


def test_modules_of_a_parent_share_scales_where_a_label_has_no_rows():
    """A parent of few labels claims what others know: an offset for each mends that."""
    modules, texts = two_parents(), tiny_texts(120)
    shouting = [
        replace(m, open_head=replace(m.open_head, calibration=replace(
            m.open_head.calibration, offset=m.open_head.calibration.offset + 9.0)))
        if m.parent is modules[-1].parent else m
        for m in modules
    ]  # fmt: skip
    plain = compose(modules, score="open")
    labels = plain.predict(texts)
    gone = min(set(labels), key=labels.count)
    kept = [i for i, label in enumerate(labels) if label != gone]
    given = [texts[i] for i in kept], [labels[i] for i in kept]
    before = compose(shouting, score="open")
    with pytest.warns(UserWarning, match=rf"no row of calibrate_on has .*'{gone}'.*each parent"):
        after = compose(shouting, score="open", calibrate_on=given)

    def right(composite):
        return sum(a == b for a, b in zip(composite.predict(given[0]), given[1], strict=True))

    assert right(after) > right(before)
    scales = after.parameters["scales"]
    for parent in {m.parent.digest for m in modules}:
        own = [tuple(scales[m.label]) for m in modules if m.parent.digest == parent]
        assert len(set(own)) == 1


def test_a_label_that_never_wins_on_its_own_rows_is_told():
    modules, texts = two_parents(), tiny_texts(80)
    first = replace(modules[0], open_head=replace(modules[0].open_head, bias=-1e3), head=Head())
    calibration = replace(first.open_head.calibration, offset=-1e3)
    first = replace(first, open_head=replace(first.open_head, calibration=calibration))
    own = [0] * 20 + [1] * 60
    truth = [(modules[0].label, modules[1].label)[i] for i in own]
    with pytest.warns(UserWarning, match="'a' wins for none of the 20 rows of calibrate_on"):
        found = compose([first, *modules[1:]], calibrate_on=(texts, truth))
    assert "never" in found.recipe[1]
