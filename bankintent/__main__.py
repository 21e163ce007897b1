"""Every command: `bankintent VERB`, or `python -m bankintent VERB` beside the repository.

bankintent init my.csv
bankintent etl --config configs/my/data.yaml
bankintent train --config configs/my/train.yaml
bankintent eval --checkpoint-path artifacts/models/my
bankintent serve --model-dir artifacts/models/my
"""

from bankintent import cli
from bankintent.commands.audit import apply, audit, review
from bankintent.commands.baseline import baseline
from bankintent.commands.compare import compare
from bankintent.commands.compare_models import compare_models
from bankintent.commands.doctor import doctor
from bankintent.commands.etl import etl
from bankintent.commands.evaluate import evaluate
from bankintent.commands.explain import explain
from bankintent.commands.init import init
from bankintent.commands.page import page
from bankintent.commands.policy import policy
from bankintent.commands.score import score
from bankintent.commands.serve import serve
from bankintent.commands.share import share
from bankintent.commands.train import train
from bankintent.commands.verify import verify

HELP = "Train, compare and serve intent classifiers from YAML files."

VERBS: dict[str, dict[str, cli.Command]] = {
    "Train a classifier": {"init": init, "etl": etl, "train": train},
    "Judge it": {
        "eval": evaluate,
        "baseline": baseline,
        "compare": compare,
        "compare-models": compare_models,
    },
    "Use it": {"serve": serve, "page": page, "score": score, "share": share},
    "Trust it": {
        "explain": explain,
        "policy": policy,
        "audit": cli.Group(audit, {"review": review, "apply": apply}),
        "verify": verify,
        "doctor": doctor,
    },
}
"""Title in the help -> verb -> what runs it."""


def main() -> None:
    """Run the verb that the command line names."""
    cli.run_verbs(HELP, VERBS)


if __name__ == "__main__":
    main()
