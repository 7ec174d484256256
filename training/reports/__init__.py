"""training/: pages and plots made from the results of experiments."""
