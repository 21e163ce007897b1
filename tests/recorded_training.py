"""`python tests/recorded_training.py LOSSES KILL ...`: the training command with the loss of each step kept.

Started by torchrun as a user starts `-m multiregime`. LOSSES is a file for the losses of the batches of
all processes, which the main one writes; KILL is `rank:step`, where that process kills itself, or `-`.
Saved models are checked in the same process, which saves the time of a fresh one.
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def record(losses: Path, kill: str) -> None:
    """Let the Trainers of this process write their losses, and kill it at a step."""
    import torch

    from bankintent import process
    from bankintent.training import processes, trainer
    from bankintent.training.methods import contrastive

    seen: list[float] = []
    kill_rank, _, kill_step = kill.partition(":")

    def note(loss: Any) -> None:
        total = loss.detach().clone()
        if processes.count() > 1:
            torch.distributed.all_reduce(total)
            total /= processes.count()
        seen.append(float(total))
        if processes.is_main():
            losses.write_text(json.dumps(seen))
        if kill_rank == str(process.rank()) and len(seen) == int(kill_step):
            os.kill(os.getpid(), signal.SIGKILL)

    for kind in (trainer.IntentTrainer, contrastive.ContrastiveTrainer):
        original = kind.training_step

        def step(self: Any, *args: Any, original: Any = original, **options: Any) -> Any:
            loss = original(self, *args, **options)
            note(loss)
            return loss

        kind.training_step = step  # type: ignore[method-assign]


def main(losses: str, kill: str) -> None:
    """Run the training command with the words that are left."""
    # torchrun starts a file, not a module of the folder that holds the package.
    tests = Path(__file__).parent
    sys.path[:0] = [str(tests.parent), str(tests)]

    from conftest import checked_in_this_process

    import multiregime
    from bankintent import cli, process

    process.quiet_libraries()
    if losses != "-":
        record(Path(losses), kill)
    with checked_in_this_process():
        cli.run(multiregime.main)


if __name__ == "__main__":
    losses_path = sys.argv.pop(1)
    main(losses_path, sys.argv.pop(1))
