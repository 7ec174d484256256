"""The leak detector: what inputs that must not tell smells apart make of a data set.

Part of training/: scikit-learn and matplotlib are loaded when needed, never on import.
"""
