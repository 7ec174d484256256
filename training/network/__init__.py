"""training/crossmodal: what a substance network can learn beside its labels.

The second modality of a smell: GC-MS element counts, an odour description, odour
descriptors. Nothing of it is an input of the exported network; each loss is a switch of
`fit` (`cross_modal` in a configuration), and `scent-train cross-modal` compares them.
May import `models`, `training` and torch; never `daemon`, never the published test splits.
"""
