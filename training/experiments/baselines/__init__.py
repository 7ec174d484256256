"""Other kinds of model, on the same windows and folds and by the same scores.

Part of training/: torch and scikit-learn are loaded when a baseline is fitted, never on import.
"""
