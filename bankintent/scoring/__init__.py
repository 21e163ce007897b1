"""A table in, the same table with predictions out: resumable, in bounded memory."""
