"""training/: the networks in torch, their losses, and what a second modality adds to them."""
