"""training/: experiments that compare models on grouped folds."""
