"""training/: recordings and tables read from disk into data sets."""
