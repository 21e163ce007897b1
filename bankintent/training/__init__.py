"""One training run: a backbone, a regime, one Trainer path, one published bundle."""
