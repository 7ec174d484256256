"""How far a model can be trusted: unknown smells, probabilities, sets, taught smells, other rigs.

Part of training/, without torch: everything is scored from predictions that `crossval` and
`crossval --open-set` stored, and in the simulator. Each module measures one part, as plain
numbers that the command joins into one JSON and one page.
"""
