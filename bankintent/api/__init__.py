"""The Python API: what `import bankintent` offers, for programs and notebooks."""
