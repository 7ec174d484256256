"""training/: training windows drawn from recordings, with augmentation."""
