"""Optional methods, each off unless a recipe turns it on."""
