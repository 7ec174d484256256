"""How far a model is to be trusted: unknown smells, stated probabilities, sets, lessons, rigs.

Part of training/, without torch: everything is scored from answers that `crossval` and
`crossval --open-set` kept, and from the simulator. Each module measures one thing, `measure(...)`,
as plain numbers that the command joins into one JSON and one page.
"""
