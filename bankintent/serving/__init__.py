"""The HTTP server: one model behind a bounded queue, an API, and pages."""
