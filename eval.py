"""Evaluate a checkpoint on a split: accuracy, macro-F1, calibration, confusions, 95 % intervals.

python -m eval --checkpoint_path artifacts/models/quickstart
python -m eval --checkpoint_path artifacts/models/quickstart --split val --data-dir data/quickstart
python -m eval --checkpoint_path artifacts/models/quickstart --data may.csv --by channel --by length
"""

from bankintent import cli
from bankintent.commands.evaluate import evaluate as main

if __name__ == "__main__":
    cli.run(main)
