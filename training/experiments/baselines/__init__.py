"""What every other kind of model makes of the same windows, on the same folds, by the same scores.

Part of training/: torch and scikit-learn are loaded when a baseline is fitted, never on import.
"""
