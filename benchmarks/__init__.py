"""The paper's tables, and what logging and composites cost; run as ``python -m benchmarks.*``."""
