"""Many LoRA adapters on one base: which bundles share it, and what each brings of its own."""
