"""Ground floor: the board, its channels, its line protocol, and its simulator.

May import the standard library, numpy and pyserial. Must never import
`models`, `calibration`, `daemon` or `training`.
"""
