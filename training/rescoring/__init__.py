"""training/: recordings of an archive scored anew by models; needs no torch."""
