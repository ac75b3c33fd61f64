"""What a trunk means: masked, cut out, and in every way of running several."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlflow_rnnmod.networks import Trunk, view
from mlflow_rnnmod.networks.groups import trimmed_tensors
from tests.contract.base import JOINT, Kind, Subject, trunk_of
from tests.contract.subjects import drawn, structures, subject, subjects
from tests.networks.graph.drawn import owned_numbers


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def check_ways(subject: Subject, trunks: list[Trunk]) -> None:
    """Masking is what a trunk means; all else is to be fast."""
    data = subject.data()
    expected = torch.stack([subject.outputs(data, trunk, cut=False) for trunk in trunks])
    cut = torch.stack([subject.outputs(data, trunk, cut=True) for trunk in trunks])
    same(cut, expected)
    for found in subject.suite.at_once(subject.network, data, trunks).values():
        same(found, expected)
    assert not torch.allclose(expected, subject.outputs(data, None).expand_as(expected))


@subjects
def test_masked_is_cut_is_every_way(name):
    mine = subject(name)
    for kind in mine.kinds:
        check_ways(mine, [trunk_of(mine.network, kind, seed) for seed in range(3)])
    plain = [trunk_of(mine.network, seed=i, fold=i == 1, mix=i == 2) for i in range(3)]
    check_ways(mine, plain)
    if len(mine.kinds) > 1:
        mixed = [trunk_of(mine.network, kind, steps=i + 1) for i, kind in enumerate(mine.kinds)]
        check_ways(mine, mixed)


@structures
@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_so_it_is_for_any_structure(suite, data):
    mine = drawn(data, suite)
    kinds = data.draw(st.lists(st.sampled_from(mine.kinds), min_size=1, max_size=4))
    trunks = [trunk_of(mine.network, kind, i, steps=1 + i) for i, kind in enumerate(kinds)]
    rows, network = mine.data(), mine.network
    expected = torch.stack([mine.outputs(rows, trunk, cut=False) for trunk in trunks])
    for found in mine.suite.at_once(network, rows, trunks).values():
        same(found, expected)
    whole = mine.outputs(rows, None)
    for kind in mine.kinds:
        full = trunk_of(network, kind, removal=0.0)
        for cut in (True, False):
            found = mine.outputs(rows, full, cut)
            torch.testing.assert_close(found, whole, rtol=0.0, atol=1e-12)


@subjects
def test_nothing_removed_is_the_network(name):
    mine = subject(name)
    data = mine.data()
    whole = mine.outputs(data, None)
    for kind in mine.kinds:
        full = trunk_of(mine.network, kind, removal=0.0)
        assert full.full
        for cut in (True, False):
            found = mine.outputs(data, full, cut)
            torch.testing.assert_close(found, whole, rtol=0.0, atol=1e-12)
        if mine.scored:
            assert view(mine.network, full) is mine.network


def owned(subject: Subject, trunk: Trunk) -> dict[str, Tensor]:
    """The rows of tensors that belong to what a trunk removes, always, bool."""
    found = {}
    for name, group in subject.network.groups.items():
        gone = ~trunk.keep[name]
        if trunk.variant == "unrolled" and group.steps:
            gone = gone.all(0)
        for owner in group.owners:
            if trunk.gates == "separate" and group.gates:
                found[owner.tensor] = gone.flatten()
                continue
            rows = len(subject.network.state_dict()[owner.tensor])
            where = found.setdefault(owner.tensor, torch.zeros(rows, dtype=torch.bool))
            stride = owner.stride or group.units * owner.width
            for block in range(owner.blocks):
                for unit in gone.nonzero()[:, 0].tolist():
                    first = block * stride + owner.offset + unit * owner.width
                    where[first : first + owner.width] = True
    return found


def noise(tensor: Tensor, where: Tensor) -> Tensor:
    draw = torch.Generator().manual_seed(7)
    added = torch.randn(tensor.shape, generator=draw, dtype=tensor.dtype)
    return torch.where(where.view(-1, *[1] * (tensor.ndim - 1)), tensor + added, tensor)


@subjects
def test_weights_of_removed_units_are_gone(name):
    """Whatever they were: their own rows, and what reads them where nothing is guessed."""
    mine, data = subject(name), subject(name).data()
    state = mine.network.state_dict()
    for kind in mine.kinds:
        trunk = trunk_of(mine.network, kind, removal=0.7, steps=2, mix=False)
        rows = owned(mine, trunk)
        other = mine.changed({n: noise(state[n], where) for n, where in rows.items()})
        for cut in (True, False):
            same(other.outputs(data, trunk, cut), mine.outputs(data, trunk, cut))
    plain = trunk_of(mine.network, fold=False, mix=False)
    changes = {}
    for group_name, group in mine.network.groups.items():
        for reader in group.readers:
            weight = changes.get(reader.tensor, state[reader.tensor]).clone()
            columns = (~plain.keep[group_name]).repeat_interleave(reader.width)
            part = weight[:, reader.offset : reader.offset + len(columns)]
            part.copy_(noise(part.transpose(0, 1), columns).transpose(0, 1))
            changes[reader.tensor] = weight
    other = mine.changed(changes)
    for cut in (True, False):
        same(other.outputs(data, plain, cut), mine.outputs(data, plain, cut))


@subjects
def test_guesses_are_folded_into_what_reads_them(name):
    """Unit by unit: a constant into the bias, a weighted sum into the columns of kept units."""
    mine, trunk = subject(name), trunk_of(subject(name).network)
    network = mine.network
    state = {n: t.clone() for n, t in network.state_dict().items()}
    found = trimmed_tensors(state, network.groups, trunk, cut=False)
    expected = {n: t.clone() for n, t in state.items()}
    gone = {n: int((~trunk.keep[n]).sum()) for n in network.groups}
    assert all(gone.values())
    borders: dict[str, str] = {}
    for group_name, group in network.groups.items():
        keep, fold, mix = (m[group_name] for m in (trunk.keep, trunk.fold, trunk.mix))
        for reader in group.readers:
            weight, bias = expected[reader.tensor], expected[reader.bias]
            border = torch.zeros(len(weight), 1, *weight.shape[2:], dtype=weight.dtype)
            for unit in (~keep).nonzero()[:, 0].tolist():
                for at in range(reader.width):
                    first = reader.offset + at
                    column = weight[:, first + unit * reader.width].clone()
                    if reader.border is None:
                        bias += column.reshape(len(column), -1).sum(1) * float(fold[unit])
                    else:
                        border[:, 0] += column * float(fold[unit])
                    for other in keep.nonzero()[:, 0].tolist():
                        read = weight[:, first + other * reader.width]
                        read += column * float(mix[unit, other])
                    weight[:, first + unit * reader.width] = 0.0
            if reader.border is not None:
                expected[reader.border] = expected.get(reader.border, 0.0) + border
                borders[reader.tensor] = reader.border
    for tensor, where in owned(mine, trunk).items():
        expected[tensor][where] = 0.0
        if tensor in borders:
            expected[borders[tensor]][where] = 0.0
    assert set(found) == {*state, *borders.values()}
    for tensor, value in expected.items():
        torch.testing.assert_close(found[tensor], value, rtol=1e-9, atol=1e-12)


@subjects
def test_a_removed_unit_holds_its_guess(name):
    """Where it is read by heads: a constant at any step, and a sum of what is kept at one."""
    mine = subject(name)
    network, data = mine.network, mine.data()
    names = network.readout_groups
    if not names:
        return  # the output layer is trimmed with the rest
    for mix in (False, True):
        trunk = trunk_of(network, mix=mix)
        rows = data if not mix or data.lengths is None else data[data.lengths == 1]
        assert len(rows)
        for cut in (True, False):
            readout = mine.outputs(rows, trunk, cut).flatten(0, -2)
            blocks = mine.suite.readout_blocks(network)
            widths = [network.units[group] * n for group, n in zip(names, blocks, strict=True)]
            parts = zip(names, blocks, readout.split(widths, dim=1), strict=True)
            for group, block, columns in parts:
                # Columns of a unit lie side by side, and each is guessed from its like.
                columns = columns.unflatten(1, (-1, block)).transpose(1, 2).flatten(0, 1)
                keep, fold = trunk.keep[group], trunk.fold[group].double()
                guess = fold.expand(len(columns), -1)
                if mix:
                    guess = guess + columns @ trunk.mix[group].double().T
                same(columns[:, ~keep], guess[:, ~keep])


def counted(subject: Subject, trunk: Trunk) -> tuple[float, float, float]:
    """Units, weights and recurrent weights that are not zeroed, by loops over steps and rows."""
    groups, state = subject.network.groups, subject.network.state_dict()

    def kept(name: str, step: int, gate: int, unit: int) -> bool:
        mask = trunk.keep[name]
        if trunk.variant == "unrolled" and groups[name].steps:
            mask = mask[step]
        if trunk.gates == "separate" and groups[name].gates:
            mask = mask[gate]
        return bool(mask[unit])

    def read(name: str, step: int) -> int:
        separate = trunk.gates == "separate" and groups[name].gates
        return sum(bool(separate) or kept(name, step, 0, u) for u in range(groups[name].units))

    steps = trunk.steps or 1
    units = weights = recurrent = 0.0
    for step in range(steps):
        for name, group in groups.items():
            gates = max(len(group.gates), 1)
            for gate in range(gates):
                units += sum(kept(name, step, gate, u) for u in range(group.units)) / gates
            for owner in group.owners:
                shape = state[owner.tensor].shape
                kernel = math.prod(shape[2:])
                columns = shape[1] * kernel if len(shape) > 1 else 1
                own = 0
                for other, reading in groups.items():
                    for reader in reading.readers:
                        if reader.tensor == owner.tensor:
                            each = reader.width * kernel
                            columns -= (reading.units - read(other, step)) * each
                            own += read(other, step) * each if other == name else 0
                rows = [
                    kept(name, step, block if owner.blocks > 1 else 0, unit)
                    for block in range(owner.blocks)
                    for unit in range(group.units)
                    for _ in range(owner.width)
                ]
                weights += sum(rows) * columns
                recurrent += sum(rows) * own
    return units / steps, weights / steps, recurrent / steps


def check_shares(subject: Subject, kind: Kind) -> None:
    network, trunk = subject.network, trunk_of(subject.network, kind)
    found = network.shares_kept(trunk)
    work = found.pop("multiply_adds_kept", None)
    assert work is None or 0 < work < 1
    whole = counted(subject, Trunk.whole(network.units))
    names = ("units_kept", "weights_kept", "recurrent_weights_kept")
    shares = zip(names, counted(subject, trunk), whole, strict=True)
    expected = {name: part / of for name, part, of in shares if of}
    assert found == pytest.approx(expected) and list(found) == list(expected)
    if kind == JOINT:  # and really, cut out
        cut = trimmed_tensors(network.state_dict(), network.groups, trunk, cut=True)
        left, of = (owned_numbers(network, t) for t in (cut, network.state_dict()))
        assert found["weights_kept"] == pytest.approx(left / of)


@subjects
def test_shares_kept_are_counted(name):
    mine = subject(name)
    for kind in mine.kinds:
        check_shares(mine, kind)
    assert set(mine.network.shares_kept(Trunk.whole(mine.network.units)).values()) == {1.0}


@structures
@settings(max_examples=25, deadline=None, derandomize=True)
@given(data=st.data())
def test_so_they_are_for_any_structure(suite, data):
    mine = drawn(data, suite)
    check_shares(mine, data.draw(st.sampled_from(mine.kinds)))


@subjects
def test_trunks_of_another_network_are_refused(name):
    mine = subject(name)
    other = Trunk.whole({"recurrent.7.fwd": 3})
    for cut in (True, False):
        with pytest.raises(ValueError, match="trunk's layers and the network's differ") as error:
            mine.outputs(mine.data(), other, cut)
        text = str(error.value)
        assert "trunk: {'recurrent.7.fwd': 3}" in text and f"network: {mine.network.units}" in text


@subjects
def test_the_parent_stays_as_it_was(name):
    mine = subject(name)
    digest = mine.parent.digest
    for kind in mine.kinds:
        for cut in (True, False):
            mine.outputs(mine.data(), trunk_of(mine.network, kind), cut)
    assert type(mine.parent)(mine.network).digest == digest
