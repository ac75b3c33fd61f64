"""``python -m mlflow_rnnmod.cli``."""

from mlflow_rnnmod.cli import main

main()
