"""A labelled table in, Parquet splits out."""
