"""Before the first run: `init` writes configs for a source, `doctor` checks the machine."""
