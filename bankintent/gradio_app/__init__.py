"""The Gradio page, which talks to the API over HTTP."""
