"""ETL of tables that do not fit in memory: rows stay on disk, numbers of them in memory."""
