"""The Gradio page, a client of the API over HTTP."""
