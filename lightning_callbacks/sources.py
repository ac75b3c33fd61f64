"""Where the rows and the labels of a training come from, and what happens to a batch on its way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

Transfer = Callable[[Any], Any]


@dataclass(frozen=True, eq=False)
class Sources:
    """Dataloaders of a training; ``None`` where there are none.

    Args:
        train: one dataloader or several - in a list, a mapping, nested. A dataloader is a
            ``DataLoader`` or anything else that gives batches as it is iterated, afresh each time.
        validation: one or several.
        datamodule: a Lightning datamodule, whose batch transfer hooks and test data are used.
        model: the user's model, which may have such hooks and data too.
    """

    train: Any
    validation: Any = None
    datamodule: Any = None
    model: Any = None

    @classmethod
    def of_trainer(cls, trainer: Any, model: Any) -> Sources:
        """The dataloaders that a trainer fits with."""
        return cls(trainer.train_dataloader, trainer.val_dataloaders, trainer.datamodule, model)

    @classmethod
    def of_arguments(cls, model: Any, train: Any, validation: Any, datamodule: Any) -> Sources:
        """Dataloaders as ``Trainer.fit`` takes them: given, of a datamodule, or of the model.

        Raises:
            ValueError: if there is nothing to train on, or it is given twice.
        """
        if train is not None and hasattr(train, "train_dataloader"):
            train, datamodule = None, train
        if datamodule is not None and train is not None:
            raise ValueError("train_dataloaders and datamodule are both given; expected one.")
        if datamodule is not None:
            datamodule.prepare_data()
            datamodule.setup("fit")
        found = cls(train, validation, datamodule, model)
        train = found._own("train_dataloader") if train is None else train
        validation = found._own("val_dataloader") if validation is None else validation
        if train is None:
            raise ValueError(
                "train_dataloaders=None; expected a dataloader, or a datamodule or model with "
                "train_dataloader()."
            )
        return replace(found, train=train, validation=validation)

    def test(self) -> Any:
        """The test dataloaders of the datamodule or model.

        Raises:
            ValueError: if there are none.
        """
        if self.datamodule is not None:
            self.datamodule.setup("test")
        found = self._own("test_dataloader")
        if found is None:
            raise ValueError(
                "report_data='test', but neither the datamodule nor the model has a "
                "test_dataloader()."
            )
        return found

    def transfer(self, model: nn.Module) -> Transfer:
        """What happens to a batch before ``model`` sees it; floats become what its weights are."""
        dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), None)
        return transfer_hooks(model, self.datamodule, dtype)

    def _own(self, hook: str) -> Any:
        for owner in (self.datamodule, self.model):
            if is_overridden(hook, owner):
                return getattr(owner, hook)()
        return None


def is_overridden(hook: str, owner: Any) -> bool:
    """Whether ``owner`` (a module or datamodule, of Lightning's or not) has its own ``hook``."""
    method = getattr(owner, hook, None)
    if method is None:
        return False
    home = getattr(getattr(method, "__func__", method), "__module__", None) or ""
    return home.partition(".")[0] not in ("lightning", "pytorch_lightning")


def find_labels(*owners: Any) -> list[str] | None:
    """Names of the labels as the first of ``owners`` has them; ``None`` where none does.

    They are looked for in attributes ``labels``, ``label_names``, ``class_names``, ``classes`` and
    ``id2label``, as lists, arrays, or names by number or the other way round; where one is there
    more than once, these are the labels of rows.
    """
    for owner in owners:
        for name in ("labels", "label_names", "class_names", "classes", "id2label"):
            found: Any = listed_labels(getattr(owner, name, None))
            if not isinstance(found, list) or len(found) < 2:
                continue
            if all(isinstance(label, str) for label in found) and len(set(found)) == len(found):
                return list(found)
    return None


def check_order(labels: Any, *owners: Any) -> None:
    """Whether labels that were said stand in the order of ``id2label``, if it names the same."""
    for owner in owners:
        numbered = getattr(owner, "id2label", None)
        found: Any = listed_labels(numbered) if isinstance(numbered, Mapping) else None
        if not isinstance(found, list) or not isinstance(labels, list) or found == labels:
            continue
        if sorted(map(str, found)) != sorted(map(str, labels)):
            continue
        at = next(i for i, said in enumerate(labels) if said != found[i])
        raise ValueError(
            f"labels={labels!r:.200} has {labels[at]!r} as number {at}, and id2label of "
            f"{type(owner).__name__} has {found[at]!r} there; expected the order of the model's "
            "outputs. Leave labels= out, or mend one of both."
        )


def listed_labels(labels: Any) -> Any:
    """Labels as a list, in the order of the model's outputs; what is none stays as it is.

    ``labels``: any sequence, an array, ``id2label`` (names by number) or ``label2id`` (numbers by
    name).

    Example:
        >>> listed_labels({0: "no", 1: "yes"}), listed_labels({"yes": 1, "no": 0})
        (['no', 'yes'], ['no', 'yes'])
    """
    if isinstance(labels, Mapping):
        by_number = {k: v for k, v in labels.items() if isinstance(v, str)}
        if len(by_number) != len(labels):
            by_number = {v: k for k, v in labels.items()}
        try:
            numbered = {int(number): name for number, name in by_number.items()}
        except (TypeError, ValueError):
            return labels
        if sorted(numbered) != list(range(len(labels))):
            return labels
        return [numbered[number] for number in range(len(numbered))]
    if hasattr(labels, "tolist"):
        labels = labels.tolist()
    return list(labels) if isinstance(labels, tuple) else labels


def transfer_hooks(
    module: Any, datamodule: Any = None, dtype: torch.dtype | None = None
) -> Transfer:
    """What Lightning does to a batch before ``training_step`` sees it, on the CPU.

    The batch transfer hooks are called where a user wrote them, the datamodule's before the
    module's as Lightning has it; float tensors become ``dtype``, as the precision settings do.
    """

    def hook(name: str, batch: Any, *args: Any) -> Any:
        for owner in (datamodule, module):
            if is_overridden(name, owner):
                return getattr(owner, name)(batch, *args)
        return batch

    def transfer(batch: Any) -> Any:
        batch = hook("on_before_batch_transfer", batch, 0)
        batch = hook("transfer_batch_to_device", batch, torch.device("cpu"), 0)
        batch = hook("on_after_batch_transfer", batch, 0)
        return batch if dtype is None else _with_dtype(batch, dtype)

    return transfer


def _with_dtype(value: Any, dtype: torch.dtype) -> Any:
    """``value`` with the float tensors in it as ``dtype``."""
    if isinstance(value, Tensor):
        return value.to(dtype) if value.is_floating_point() else value
    if isinstance(value, MutableMapping):
        found = copy.copy(value)
        found.update({key: _with_dtype(item, dtype) for key, item in value.items()})
        return found
    if isinstance(value, list | tuple):
        items = (_with_dtype(item, dtype) for item in value)
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if is_dataclass(value) and not isinstance(value, type):
        own = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        return replace(value, **{name: _with_dtype(item, dtype) for name, item in own.items()})
    return value
