"""What a model is: preprocessing, decision mathematics, the bundle, and how to run one.

May import `hardware`. Must never import `calibration`, `daemon` or `training`,
and never torch: both leaves use this room, one of them on a Raspberry Pi.
"""
