"""Batch scoring on a Ray cluster: Ray Data reads the chunks, a pool of actors answers them.

The driver checks the input and puts the parts together, with the functions of the local engine. So
the output has the same bytes, and either engine continues what the other has begun.
"""

import time
from pathlib import Path
from typing import Any

from bankintent import progress
from bankintent.config import ScoreConfig
from bankintent.corpus.records import Table
from bankintent.errors import OutputError
from bankintent.inference.runtime import Runtime
from bankintent.on_ray.actors import Job, Reader, Scorer
from bankintent.on_ray.cluster import Cluster, connect, demands, user_error
from bankintent.scoring import score as scoring
from bankintent.scoring import shards
from bankintent.scoring.parts import Parts
from bankintent.scoring.score import ScoreSummary

BLOCK_BYTES = 1
"""Largest block that Ray Data makes of several rows, so that each chunk, which is one row, has its
own: Ray would otherwise hand 128 MB of texts to one actor."""


def score(settings: ScoreConfig, overwrite: bool = False) -> ScoreSummary:
    """`scoring.score.score` with answers from the cluster that the settings name."""
    with connect(settings.ray, "engine: ray") as cluster:
        actors = cluster.require_room()
        if settings.ray.actors is not None:
            actors = min(actors, settings.ray.actors)
        needed = [settings.input, settings.model_dir]
        cluster.require_shared(settings.output.absolute().parent, needed)

        def compute(
            table: Table, column: int, parts: Parts, runtime: Runtime, settings: ScoreConfig
        ) -> tuple[int, float]:
            job = make_job(settings, column, parts, runtime)
            return score_missing(table, job, cluster, actors)

        return scoring.score(settings, overwrite, compute=compute)


def make_job(settings: ScoreConfig, column: int, parts: Parts, runtime: Runtime) -> Job:
    """What the nodes have to know; with absolute paths, because they have other working folders."""
    paths = {
        "input": settings.input.absolute(),
        "output": settings.output.absolute(),
        "model_dir": settings.model_dir.absolute(),
    }
    here = Parts(parts.folder.absolute(), parts.run, parts.rows, parts.chunk_rows)
    return Job(
        settings=settings.model_copy(update=paths),
        column=column,
        parts=here,
        model=scoring.model_identity(runtime),
        threads=settings.threads or settings.ray.cpus,
        folder=Path.cwd(),
    )


def score_missing(table: Table, job: Job, cluster: Cluster, actors: int) -> tuple[int, float]:
    """Score the chunks that have no part yet; returns their rows and the seconds that it took."""
    import ray

    missing, rows_before = scoring.begin_missing(job.parts)
    started = time.perf_counter()
    if missing:
        done = _dataset(shards.ranges(table, missing), job, cluster, min(actors, len(missing)))
        with progress.row_progress("scoring", job.parts.rows, done=rows_before) as advance:
            try:
                for row in done.iter_rows():
                    advance(row["rows"])
            except (ray.exceptions.RayError, OSError) as error:
                raise _explain(error) from None

    return job.parts.rows - rows_before, time.perf_counter() - started


def _dataset(ranges: list[list[int]], job: Job, cluster: Cluster, actors: int) -> Any:
    """Ray's dataset of the chunks that are done; it computes them while it is read."""
    import ray

    context = ray.data.DataContext.get_current()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # In any order: each part has its number.
    context.execution_options.preserve_order = False

    items = ray.data.from_items(
        [{"numbers": numbers} for numbers in ranges], override_num_blocks=len(ranges)
    )
    texts = items.map_batches(
        Reader(job).__call__,
        batch_size=1,
        batch_format="pyarrow",
        # Reading takes little. With other demands than the actors' it also stays a task of its own.
        num_cpus=0,
    )
    return texts.map_batches(
        Scorer,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="pyarrow",
        # A chunk is begun again, on another actor, as often as its actor or node dies.
        compute=ray.data.ActorPoolStrategy(size=actors),
        **demands(cluster.settings),
    )


def _explain(error: BaseException) -> Exception:
    """What a user can do about an error on a node."""
    found = user_error(error)
    if found is not None:
        return found

    reason = str(error).strip().splitlines()[-1]
    return OutputError(
        f"the cluster could not score all rows ({reason})",
        "Run the same command again: what is scored is kept",
    )
