"""Lightning callbacks: a network that was trained comes apart into modules, in MLflow."""

from lightning_callbacks.module_decomposition import ModuleDecomposition

__all__ = ["ModuleDecomposition"]
