"""Which labels are likely wrong, a page to decide on them, and the patch that ETL applies."""
