"""The decomposer by itself: without a trainer, and without Lightning."""

from collections import namedtuple
from dataclasses import dataclass

import mlflow
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence
from torch.utils.data import DataLoader, TensorDataset

import lightning_callbacks
import mlflow_rnnmod
from lightning_callbacks import Decomposer, Sources
from lightning_callbacks.arguments import check_arguments
from lightning_callbacks.batches import Whole, split
from lightning_callbacks.collecting import read_batches
from lightning_callbacks.readers import READERS, read_spec, reader_of, reader_of_spec
from lightning_callbacks.sources import transfer_hooks
from mlflow_rnnmod.decomposition import Pairs
from mlflow_rnnmod.networks import NetworkSpec, Rows, TranslatorSpec
from tests.callbacks import models
from tests.callbacks.training import equal, run_python, states


def plain() -> tuple[nn.Module, Sources]:
    """A module that is no LightningModule, and its dataloaders."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            models.layers(self)

        def forward(self, x):
            return self.head(self.recurrent(self.embedding(x))[0].amax(dim=1))

    torch.manual_seed(0)
    return Network(), Sources(*models.loaders())


@pytest.mark.slow
def test_without_lightning_a_plain_module_is_decomposed_and_logged(tracking_uri, tmp_path):
    done = run_python(
        """
        import sys
        for name in ("lightning", "pytorch_lightning", "lightning_utilities", "torchmetrics"):
            sys.modules[name] = None

        import mlflow
        import torch
        from lightning_callbacks import Decomposer, Sources
        from torch.utils.data import DataLoader, TensorDataset

        class Network(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.embedding = torch.nn.Embedding(9, 4, padding_idx=0)
                self.lstm = torch.nn.LSTM(4, 8, batch_first=True)
                self.head = torch.nn.Linear(8, 2)

            def forward(self, x):
                return self.head(self.lstm(self.embedding(x))[0].amax(1))

        torch.manual_seed(0)
        x, y = torch.randint(1, 9, (80, 5)), torch.arange(80) % 2
        x[::3, 3:] = 0
        train, held_out = (DataLoader(TensorDataset(x, y), 8, shuffle=s) for s in (True, False))
        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        decomposer = Decomposer(["a", "b"], removal=0.25, registered_model_prefix="there")
        found = decomposer.decompose(Network(), Sources(train, held_out))
        assert all(sys.modules[n] is None for n in ("lightning", "pytorch_lightning"))
        print(found.summary)
        print(mlflow.get_run(found.logged.run_id).info.status, sorted(found.logged.uris))
        try:
            from lightning_callbacks import ModuleDecomposition
        except ImportError as error:
            print(error)
        """,
        tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    summary, logged, error = done.stdout.splitlines()[-3:]
    assert "2 modules" in summary and "logged to MLflow" in summary
    assert logged == "FINISHED ['a', 'b']"
    assert "pip install pytorch-lightning" in error
    composite = mlflow_rnnmod.compose(["models:/there.a/1", "models:/there.b@champion"])
    assert set(composite.predict([[3, 4, 5], [8]])) <= {"a", "b"}


def test_importing_it_does_not_import_lightning(tmp_path):
    done = run_python(
        """
        import sys
        from lightning_callbacks import Decomposer
        print(*sorted({name.partition(".")[0] for name in sys.modules if "lightning" in name}))
        """,
        tmp_path,
    )
    assert done.stdout.split() == ["lightning_callbacks"], done.stderr


def test_public_names():
    for name in lightning_callbacks.__all__:
        assert getattr(lightning_callbacks, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = lightning_callbacks.Nothing


def test_the_same_as_the_callback_does_and_the_model_is_left_alone(tracking_uri):
    model, sources = plain()
    before = states(model.train())
    decomposer = Decomposer(models.LABELS, removal=0.25, max_rows=60)
    with mlflow.start_run() as run:
        one = decomposer.decompose(model, sources, progress=None)
    assert one.logged.run_id == run.info.run_id
    callback = lightning_callbacks.ModuleDecomposition(models.LABELS, removal=0.25, max_rows=60)
    other = callback.decompose_checkpoint(None, model, sources.train, sources.validation)
    assert one.decomposition.parent.digest == other.parent.digest
    assert one.decomposition.figures == other.figures
    assert equal(states(model), before) and model.training


def test_weights_of_a_file_and_a_choice_of_modules(calls, tmp_path):
    model, sources = plain()
    path = tmp_path / "weights.pt"
    torch.save(model.state_dict(), path)
    nn.init.zeros_(model.head.weight)
    decomposer = Decomposer(models.LABELS)
    prepared = decomposer.prepare(model, sources)
    done = decomposer.decompose(
        model, sources, path, prepared=prepared, choose=lambda found: found.modules[:1]
    )
    assert bool(calls.decompose[0].parent.network.output.weight.any())
    assert [module.label for module in done.modules] == ["low"]
    assert [module.label for module in calls.log[0].decomposition.modules] == ["low"]
    silent = decomposer.decompose(model, sources, choose=lambda found: [])
    assert silent.logged is None and "not logged" in silent.summary and len(calls.log) == 1


def test_what_should_be_known_is_a_warning(calls):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            models.layers(self)

        def forward(self, x):
            return self.head(self.recurrent(self.embedding(x))[0][:, -1])

    with pytest.warns(UserWarning, match="reads its padding"):
        Decomposer(models.LABELS).decompose(Last(), plain()[1], progress=None)


def test_arguments_are_checked_when_it_is_made():
    with pytest.raises(ValueError) as caught:
        Decomposer("low", max_rows=-1, rule="magic")
    for words in ("labels='low'", "max_rows=-1", "rule='magic'"):
        assert words in str(caught.value)
    with pytest.raises(ValueError, match="expected a dataloader, Rows, 'test'"):
        Decomposer(report_data=Pairs(Rows(torch.ones(1, 1)), {}))
    with pytest.raises(AttributeError):
        Decomposer().settings.max_rows = 3


def test_arguments_are_checked_once_for_a_training(calls, monkeypatch):
    from lightning_callbacks import decomposer
    from tests.callbacks.training import fit

    checks = []
    monkeypatch.setattr(
        decomposer, "check_arguments", lambda *own: checks.append(1) or check_arguments(*own)
    )
    callback = lightning_callbacks.ModuleDecomposition(models.LABELS)
    _, model = fit(callback)
    callback.decompose_checkpoint(None, model, *models.loaders())
    assert checks == [1] and len(calls.decompose) == 2


def test_readers_say_what_a_mapping_means_and_what_they_read():
    translates = {"starts": [3, 4], "end": 2}
    specs = [None, NetworkSpec(), {"readout": "mean_valid"}, TranslatorSpec((3,), 1), translates]
    kinds = [type(read_spec(spec)).__name__ for spec in specs]
    assert kinds == ["NoneType", "NetworkSpec", "NetworkSpec", "TranslatorSpec", "TranslatorSpec"]
    names = [type(reader_of(models.Classifier(), read_spec(spec))).__name__ for spec in specs]
    assert names == ["RecurrentReader"] * 3 + ["TranslatorReader"] * 2
    assert reader_of_spec(None) is READERS[-1]


def test_rows_that_are_read_at_once():
    vectors, images = torch.randn(8, 5), torch.ones(8, 1, 4, 4, dtype=torch.uint8)
    y = torch.arange(8) % 2
    loaders = [DataLoader(TensorDataset(x, y), 3) for x in (vectors, images)]
    for loader, shape in zip(loaders, [(5,), (1, 4, 4)], strict=True):
        batches = list(read_batches(loader, lambda raw: raw, layout=Whole()))
        assert [len(batch.rows) for batch in batches] == [3, 3, 2]
        assert batches[0].rows.values.shape == (3, *shape)
        assert batches[0].rows.values.dtype == torch.float32
    assert Whole().as_seen(batches[0]) == Whole()
    with pytest.raises(ValueError, match=r"8 targets and inputs of shape \(5, 8\)"):
        split((vectors.T, y), layout=Whole())
    with pytest.raises(ValueError, match="expected vectors"):
        split((y, y), layout=Whole())


Named = namedtuple("Named", ["x", "y"])


@dataclass
class Fields:
    x: torch.Tensor
    y: torch.Tensor


def test_floats_anywhere_in_a_batch_take_the_dtype_of_the_weights():
    transfer = transfer_hooks(None, None, torch.float64)
    x, y = torch.ones(2), torch.arange(2)
    for batch in ([x, y], (x, y), Named(x, y)):
        moved = transfer(batch)
        assert type(moved) is type(batch)
        assert (moved[0].dtype, moved[1].dtype) == (torch.float64, torch.int64)
    moved = transfer({"x": x, "more": [{"x": x}], "text": "a"})
    assert moved["x"].dtype == moved["more"][0]["x"].dtype == torch.float64
    assert moved["text"] == "a"
    moved = transfer(Fields(x, y))
    assert (moved.x.dtype, moved.y.dtype) == (torch.float64, torch.int64)
    assert transfer(pack_sequence([x])).data.dtype == torch.float64
    assert x.dtype == torch.float32


def test_rows_for_the_figures(calls):
    x, _, y = models.token_data(9, 4)
    model, sources = plain()
    Decomposer(models.LABELS, report_data=Rows(x, None, y)).decompose(model, sources)
    assert calls.decompose[0].report.values.tolist() == x.tolist()
    with pytest.raises(ValueError, match="neither the datamodule nor the model has a test"):
        Decomposer(models.LABELS, report_data="test").decompose(model, sources)


@pytest.mark.parametrize("style", ["tqdm", "rich"])
def test_all_stages_are_one_bar(style, capsys, monkeypatch):
    import rich.progress
    import tqdm.auto

    from lightning_callbacks.progress import progress_bar

    bars = []
    real, add = tqdm.auto.tqdm.__init__, rich.progress.Progress.add_task
    made = lambda self, *a, **k: bars.append(1) or real(self, *a, **k)  # noqa: E731
    added = lambda self, *a, **k: bars.append(1) or add(self, *a, **k)  # noqa: E731
    monkeypatch.setattr(tqdm.auto.tqdm, "__init__", made)
    monkeypatch.setattr(rich.progress.Progress, "add_task", added)
    with progress_bar(style) as show:
        for stage in ("watching units", "sizing: 3 trunks, 35%", "fitting modules", "upload"):
            show(stage, 1, 2)
            show(stage, 2, 2)
    shown = "".join(capsys.readouterr())
    assert len(bars) == 1
    assert "upload 2/2" in shown and "100%" in shown
