"""Heads: fitted on what they say, and each repair kept only where it helps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mlflow_rnnmod.decomposition import DecompositionConfig, draw_sample
from mlflow_rnnmod.decomposition.fitting import (
    fit_all,
    fit_open_heads,
    fit_report,
)
from mlflow_rnnmod.decomposition.material import Material, pick_fit_rows, prepare_material
from mlflow_rnnmod.decomposition.module import Calibration, Head
from mlflow_rnnmod.decomposition.repairs import fit_calibration, log_loss
from mlflow_rnnmod.networks import Parent, Rows, Trunk, masked
from tests.builders import tiny_parent, tiny_rows, tiny_trunk

ALL = ("fold", "refit", "calibrate")


def answered(parent: Parent, count: int, seed: int, wrong: float = 0.1) -> Rows:
    """Random rows with the parent's own answers as targets, some of them replaced."""
    rows = tiny_rows(parent, count, seed=seed)
    draw = torch.Generator().manual_seed(seed + 500)
    with torch.no_grad():
        targets = parent.network(rows).argmax(1)
    other = torch.randint(len(parent.labels), (count,), generator=draw)
    return replace(rows, targets=torch.where(torch.rand(count, generator=draw) < wrong, other,
                                             targets))  # fmt: skip


def make_material(parent: Parent, fit: Rows, calibration: Rows, report: Rows) -> Material:
    sample = draw_sample(fit, len(parent.labels), 500, 0)
    return prepare_material(parent, sample, calibration, report, DecompositionConfig())


@pytest.fixture(scope="module")
def parent() -> Parent:
    return tiny_parent(recurrent=((8,),))


@pytest.fixture(scope="module")
def material(parent: Parent) -> Material:
    return make_material(
        parent, answered(parent, 300, 1), answered(parent, 200, 2), answered(parent, 50, 3)
    )


def plain_margins(parent: Parent, trunk: Trunk, rows: Rows, label: int) -> tuple[Tensor, Tensor]:
    """Readouts of the masked parent, and their log-odds by the formula."""
    with torch.no_grad():
        readout = masked(parent.network, trunk).readout(rows)
        logits = parent.network.output(readout)
    others = [i for i in range(logits.shape[1]) if i != label]
    return readout, logits[:, label] - torch.logsumexp(logits[:, others], 1)


def fit_heads(material, trunk, label, repairs, open_head=True):
    """The heads of one label's module, as a decomposition fits them one stage after the other."""
    trunks = {label: trunk}
    found = fit_report(material, trunks, fit_all(material, trunks, repairs))
    return (fit_open_heads(material, trunks, found) if open_head else found)[label]


def best_loss(margins: Tensor, positive: Tensor) -> float:
    """The log-loss that a calibration leaves."""
    return log_loss(fit_calibration(margins, positive)(margins), positive)


@pytest.mark.parametrize("removal", [0.0, 0.4])
def test_margins_are_those_of_the_masked_parent(parent, material, removal):
    for label in range(3):
        trunk = tiny_trunk(parent, removal, seed=label)
        found = fit_heads(material, trunk, label, ALL, open_head=False)
        for rows, margins in (
            (material.calibration, found.margins),
            (material.report, found.report_margins),
        ):
            readout, own = plain_margins(parent, trunk, rows, label)
            weight = found.head.weight if found.head.weight is not None else torch.zeros(8)
            expected = own + readout @ weight + found.head.bias
            torch.testing.assert_close(margins, expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(found.positive, material.calibration.targets == label)


def test_without_repairs_the_head_is_the_parents(parent, material):
    found = fit_heads(material, tiny_trunk(parent, 0.4), 1, (), open_head=False)
    assert found.head == Head() or (found.head.weight is None and found.head.bias == 0.0)
    assert found.head.calibration == Calibration() and found.kept == ()
    assert found.open_head is found.head


@pytest.mark.parametrize("repairs", [ALL, ("refit",), ("calibrate",), ("refit", "calibrate")])
def test_what_is_kept_helps(parent, material, repairs):
    for label in range(3):
        trunk = tiny_trunk(parent, 0.4, seed=label)
        found = fit_heads(material, trunk, label, repairs, open_head=False)
        _, own = plain_margins(parent, trunk, material.calibration, label)
        assert set(found.kept) <= set(repairs)
        assert ("fold" in found.kept) == ("fold" in repairs)
        assert ("refit" in found.kept) == (found.head.weight is not None)
        if "refit" in found.kept:
            assert best_loss(found.margins, found.positive) < best_loss(own, found.positive) + 1e-6
        calibrated = found.head.calibration(found.margins)
        if "calibrate" in found.kept:
            assert log_loss(calibrated, found.positive) < log_loss(found.margins, found.positive)
        else:
            assert found.head.calibration == Calibration()


def test_a_refit_on_the_wrong_labels_is_not_kept(parent):
    """Its training rows say the opposite of its calibration rows."""
    fit, calibration = answered(parent, 300, 1, 0.0), answered(parent, 200, 2, 0.0)
    fit = replace(fit, targets=(fit.targets + 1) % 3)
    material = make_material(parent, fit, calibration, answered(parent, 20, 3))
    for label in range(3):
        found = fit_heads(material, Trunk.whole(parent.network.units), label, ALL, False)
        assert "refit" not in found.kept and found.head.weight is None


def test_a_refit_that_is_needed_is_kept(parent):
    """Labels mean something else than the parent thinks; its readout still tells them."""

    def renamed(rows: Rows) -> Rows:
        return replace(rows, targets=(rows.targets + 1) % 3)

    material = make_material(
        parent,
        renamed(answered(parent, 400, 1, 0.0)),
        renamed(answered(parent, 200, 2, 0.0)),
        answered(parent, 20, 3),
    )
    for label in range(3):
        found = fit_heads(material, Trunk.whole(parent.network.units), label, ("refit",), False)
        _, own = plain_margins(
            parent, Trunk.whole(parent.network.units), material.calibration, label
        )
        if "refit" in found.kept:
            assert best_loss(found.margins, found.positive) < best_loss(own, found.positive)
    kept = [
        "refit" in fit_heads(material, tiny_trunk(parent, 0.0), y, ("refit",), False).kept
        for y in range(3)
    ]
    assert any(kept)


def test_calibration_of_noise_is_not_kept(parent):
    """Where a few rows say nothing about the margins, fitting them does not help others."""
    rows = answered(parent, 300, 1, 0.0)
    draw = torch.Generator().manual_seed(0)
    kept = 0
    for seed in range(6):
        calibration = answered(parent, 60, 10 + seed, 0.0)
        _, own = plain_margins(parent, Trunk.whole(parent.network.units), calibration, 0)
        truth = torch.rand(60, generator=draw) < torch.sigmoid(own)  # the margins are right
        calibration = replace(calibration, targets=torch.where(truth, 0, 1))
        material = make_material(parent, rows, calibration, rows[slice(0, 20)])
        found = fit_heads(material, Trunk.whole(parent.network.units), 0, ("calibrate",), False)
        kept += "calibrate" in found.kept
    assert kept < 6


def test_the_open_head_knows_made_up_rows(parent, material):
    """Against its background it has less loss than the head that never saw it."""
    for label in range(3):
        trunk = Trunk.whole(parent.network.units)
        found = fit_heads(material, trunk, label, ALL)
        readout, own = plain_margins(parent, trunk, material.background, label)
        none = torch.zeros(len(readout), dtype=torch.bool)
        assert log_loss(found.open_head(readout, own), none) < log_loss(
            found.head(readout, own), none
        )
        readout, own = plain_margins(parent, trunk, material.calibration, label)
        margins = found.open_head(readout, own)
        assert margins[found.positive].mean() > margins[~found.positive].mean()


def test_energy_is_that_of_the_unmasked_parent(parent, material):
    with torch.no_grad():
        energies = torch.logsumexp(parent.network(material.calibration), 1)
    assert material.energy.mean == pytest.approx(float(energies.mean()), rel=1e-5)
    spread = float(energies.std(correction=0))
    assert material.energy.deviation == pytest.approx(spread, rel=1e-4)


def test_energy_of_one_row_has_a_deviation(parent):
    one = answered(parent, 1, 5)
    material = make_material(parent, answered(parent, 30, 1), one, one)
    assert material.energy.deviation > 0


def test_backgrounds_come_from_their_own_rows(parent, material):
    assert len(material.background) == len(material.fit.rows)
    assert len(material.calibration_background) == len(material.calibration)
    tokens = set(material.background.values.flatten().tolist())
    assert tokens <= set(range(parent.network.config.input_size))


def test_fit_rows_are_those_of_the_label_and_doubtful_others(monkeypatch, parent, material):
    from mlflow_rnnmod.decomposition import material as rows_of

    targets, weights = material.fit.rows.targets, material.fit.weights
    rows, found = pick_fit_rows(material, 0)
    assert len(rows) == len(targets) and torch.equal(found, weights)
    monkeypatch.setattr(rows_of, "MAX_FIT_ROWS", 230)
    material = replace(material)  # which has chosen none yet
    with torch.no_grad():
        logits = parent.network(material.fit.rows)
    for label in range(3):
        own = targets == label
        rows, found = pick_fit_rows(material, label)
        assert rows.tolist() == sorted(set(rows.tolist()))
        mine = own[rows]
        assert int(mine.sum()) == int(own.sum()) and torch.equal(found[mine], weights[own])
        assert int(own.sum()) + 50 < len(rows) < len(targets)
        # As much as all others together, and rather those between two minds.
        ratio = found[~mine].sum() / weights[~own].sum()
        assert float(ratio) == pytest.approx(1.0, abs=0.25)
        sure = torch.log_softmax(logits, 1)[:, label].exp().sub(0.5).abs()
        assert float(sure[rows[~mine]].mean()) < float(sure[~own].mean())


def test_own_rows_are_drawn_where_there_are_too_many(monkeypatch, parent, material):
    from mlflow_rnnmod.decomposition import material as rows_of

    monkeypatch.setattr(rows_of, "MIN_FIT_ROWS", 60)
    monkeypatch.setattr(rows_of, "MAX_FIT_ROWS", 60)
    material = replace(material)  # which has chosen none yet
    for label in range(3):
        own = material.fit.rows.targets == label
        rows, found = pick_fit_rows(material, label)
        assert 30 <= len(rows) <= 100 and 10 <= int(own[rows].sum()) < int(own.sum())
        total = float(found.sum() / material.fit.weights.sum())
        assert total == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize("repairs", [ALL, ("refit",)])
def test_labels_are_refitted_side_by_side_as_one_after_the_other(parent, material, repairs):
    """With trunks of their own, with shared ones, and begun where earlier fits ended."""
    single = {y: tiny_trunk(parent, 0.4, seed=y) for y in range(3)}
    common = {y: tiny_trunk(parent, 0.4, seed=y // 2) for y in range(3)}
    for trunks in (single, common):
        together = fit_all(material, trunks, repairs)
        again = fit_all(material, trunks, repairs, {y: h.fit for y, h in together.items()})
        for label, trunk in trunks.items():
            alone = fit_heads(material, trunk, label, repairs, open_head=False)
            for found in (together[label], again[label]):
                (w, b), (own_w, own_b) = found.fit, alone.fit
                torch.testing.assert_close(w, own_w, rtol=2e-3, atol=2e-3)
                assert b == pytest.approx(own_b, rel=2e-3, abs=2e-3)


def test_without_rivals_the_head_that_answers_best_is_taken():
    """By a slow count of hits over all rows, among the heads that the repairs offer."""
    parent = tiny_parent(recurrent=((8,),), output="multilabel")
    draw = torch.Generator().manual_seed(3)

    def rows(count: int, seed: int) -> Rows:
        found = tiny_rows(parent, count, seed=seed)
        with torch.no_grad():
            logits = parent.network(found)
        # Right where the logit is above 0.3, mostly: the parent's own threshold is too low.
        noise = torch.rand(logits.shape, generator=draw) < 0.1
        return replace(found, targets=(logits > 0.3) ^ noise)

    sample = draw_sample(rows(300, 1), 3, 500, 0, "multilabel")
    material = prepare_material(parent, sample, rows(200, 2), rows(50, 3), DecompositionConfig())

    def f1(head: Head, trunk: Trunk, label: int) -> float:
        calibration = material.calibration
        with torch.no_grad():
            readout = masked(parent.network, trunk).readout(calibration)
            own = parent.network.output(readout)[:, label]
        hits = wrong = 0
        for score, right in zip(head(readout, own), calibration.targets[:, label], strict=True):
            hits += bool(score >= 0) and bool(right)
            wrong += bool(score >= 0) != bool(right)
        return 2 * hits / (2 * hits + wrong)

    for label in range(3):
        trunk = tiny_trunk(parent, 0.4, seed=label)
        taken = fit_heads(material, trunk, label, ALL, open_head=False)
        assert f1(taken.head, trunk, label) >= max(f1(Head(), trunk, label), 0.5)
