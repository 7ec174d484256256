"""How good a model is: the published protocol's scores, streaming through the decision layer.

Part of training/, without torch: `scent-train evaluate` runs on a machine that has none.
"""
