"""Train a classifier (its head only, with LoRA, or all weights) and publish it as a bundle.

python -m multiregime --config configs/train.yaml --regime lora
python -m multiregime --config configs/banking77/full-ft.yaml --set lr=5e-5 --set output_dir=out
"""

from bankintent import cli
from bankintent.commands.train import train as main

if __name__ == "__main__":
    cli.run(main)
