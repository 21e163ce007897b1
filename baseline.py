"""Measure references that train no encoder, on the split that models are evaluated on.

python -m baseline --config configs/quickstart/baseline.yaml
python -m baseline --config configs/baseline.yaml --set data_dir=data/banking77
"""

from bankintent import cli
from bankintent.commands.baseline import baseline as main

if __name__ == "__main__":
    cli.run(main)
