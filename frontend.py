"""A Gradio page over the API: one message, a table of messages, the model card.

python -m frontend --model-dir artifacts/models/quickstart
python -m frontend --backend-url http://127.0.0.1:8000
"""

from bankintent import cli
from bankintent.commands.page import page as main

if __name__ == "__main__":
    cli.run(main)
