"""Make Parquet splits, a label schema and a data report of a source of labelled sentences.

python -m etl --config configs/data.yaml
python -m etl --config configs/banking77/data.yaml --set dataset_name=path/to/banking77
"""

from bankintent import cli
from bankintent.commands.etl import etl as main

if __name__ == "__main__":
    cli.run(main)
