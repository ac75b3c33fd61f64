"""Where the rows of a training come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lightning_callbacks._lightning import is_overridden


@dataclass(frozen=True, eq=False)
class Sources:
    """Dataloaders of a training; ``None`` where there are none.

    Args:
        model: the user's model.
        datamodule: the user's datamodule.
        train: one dataloader or several.
        validation: one dataloader or several.
    """

    model: Any
    datamodule: Any
    train: Any
    validation: Any

    @classmethod
    def of_trainer(cls, trainer: Any, model: Any) -> Sources:
        """The dataloaders that a trainer fits with."""
        return cls(model, trainer.datamodule, trainer.train_dataloader, trainer.val_dataloaders)

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
        found = cls(model, datamodule, train, validation)
        train = found._own("train_dataloader") if train is None else train
        validation = found._own("val_dataloader") if validation is None else validation
        if train is None:
            raise ValueError(
                "train_dataloaders=None; expected a dataloader, or a datamodule or model with "
                "train_dataloader()."
            )
        return cls(model, datamodule, train, validation)

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

    def _own(self, hook: str) -> Any:
        for owner in (self.datamodule, self.model):
            if is_overridden(hook, owner):
                return getattr(owner, hook)()
        return None
