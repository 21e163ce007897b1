"""The page at `/` and the model card at `/card`, as HTML that works without JavaScript."""
