"""One configuration file per shipped model, read by `scent-train fit --config`."""
