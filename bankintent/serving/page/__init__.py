"""The page at `/` and the model card at `/card`: server-rendered HTML that works without JavaScript."""
