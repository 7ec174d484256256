"""The audit: how well inputs without smell distinguish the labels of a data set.

Part of training/: scikit-learn and matplotlib are loaded when needed, never on import.
"""
