"""Floor 5: all that speaks MLflow: the flavor, bulk logging, the registry, the evaluator.

Nothing is imported here: MLflow loads the evaluator while it is itself being imported.
"""
