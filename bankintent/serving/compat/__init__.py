"""Routes for clients of other services, answered by the one model that is served (`compat:`)."""
