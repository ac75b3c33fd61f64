"""Translators in the suite: their modules are routed to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mlflow_rnnmod.composition import Composite
from mlflow_rnnmod.networks import Parent, Trunk
from mlflow_rnnmod.networks.translator.masked_decoder import trunk_decoder
from tests.contract.base import Seen, Slowly, Suite, cached
from tests.networks.recurrent.reference import make_cell
from tests.translators import END, sentences, tiny_pairs, tiny_translator, told_rows, word_encoder


def translating(*args: Any, **settings: Any) -> Parent:
    parent = tiny_translator(*args, scale=1.8, **settings)
    parent.network.double()
    return parent


class TranslatorSuite(Suite):
    """Masks over decoders; text or ids, one tokenizer or two."""

    name = "translator"

    def parents(self) -> Mapping[str, Callable[[], Parent]]:
        two = ("de", "fr")
        return {
            "gru, text": cached(translating, "gru", two, decoder=(6,)),
            "lstm, ids, two layers": cached(
                translating, "lstm", two, ((3, 3), (4,)), (5, 4), text=False
            ),
            "rnn_relu, ids": cached(translating, "rnn_relu", two, decoder=(5,), text=False),
            "rnn_tanh, two tokenizers": cached(
                translating, "rnn_tanh", two, decoder=(7,), joint=False
            ),
        }

    def inputs(self, parent: Parent, count: int, seed: int) -> list[Any]:
        texts = sentences(count, seed)[0]
        return texts if parent.tokenizer else word_encoder(parent.labels).ids(texts)

    def data(self, parent: Parent, count: int, seed: int) -> Any:
        return tiny_pairs(parent, count, seed)

    def outputs(self, network: Any, data: Any, trunk: Trunk | None, cut: bool = True) -> Tensor:
        """Logits after each token of the right translations into the first language."""
        code = network.labels[0]
        given, _, _ = told_rows(network, code, data.targets[code])
        decoder = network.stepper() if trunk is None else trunk_decoder(network, trunk, cut)
        with torch.inference_mode():
            return decoder.run(given, network.encode(data.sources))

    def at_once(self, network: Any, data: Any, trunks: Sequence[Trunk]) -> dict[str, Tensor]:
        """Each trunk is run by itself."""
        return {"cut": torch.stack([self.outputs(network, data, trunk) for trunk in trunks])}

    def slow(self, network: Any, row: Any, added: Mapping[str, Tensor] | None = None) -> Slowly:
        config = network.config
        with torch.no_grad():
            first = network.encode(row)
        ids = row.tokens[0, : int(row.token_lengths[0])].tolist()
        start = config.starts[int(row.targets[0])]
        cells = [make_cell(config.cell, network.cell(i)) for i in range(len(first))]
        states = list(first)
        outputs: dict[str, list[Tensor]] = {name: [] for name in network.units}
        likelihood = torch.zeros((), dtype=torch.float64)
        for step, (token, right) in enumerate(zip([start, *ids], [*ids, END], strict=True)):
            x = network.embedding.weight[token][None]
            for i, (name, cell) in enumerate(zip(outputs, cells, strict=True)):
                after = cell(x, states[i] if len(states[i]) > 1 else states[i][0])
                parts = list(after) if isinstance(after, tuple) else [after]
                if added is not None:
                    parts[0] = parts[0] + added[name][step]
                states[i], x = tuple(parts), parts[0]
                outputs[name].append(x[0])
            likelihood = likelihood + network.output(x)[0].log_softmax(0)[right]
        groups = {
            name: Seen(torch.stack(values).detach(), range(len(values)), [True] * len(values), h[0])
            for (name, values), h in zip(outputs.items(), first, strict=True)
        }
        mean = likelihood / (len(ids) + 1)
        return Slowly(groups, mean.expand(len(network.labels)))

    def check_is_parent(self, composite: Composite, parent: Parent, count: int = 9) -> None:
        """Whether a composite translates token for token as the parent does."""
        inputs = self.inputs(parent, count, 5)
        rows = parent.rows(parent.input.check(inputs, parent.network.config.input_size))
        for code in parent.labels:
            ids = parent.network.translate(rows, code)
            expected = ids if parent.writer is None else parent.writer.decode(ids)
            assert composite.predict(inputs, target=code) == expected

    def answers(self, thing: Any, inputs: list[Any]) -> Any:
        return thing.predict(inputs)
