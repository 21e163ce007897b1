"""The page of MLflow that shows all runs with their accuracy: its columns, its tag, its address."""

import json
import time

KEY = "bankintent"
"""Name of the view in its address."""

TAG = f"mlflow.sharedViewState.{KEY}"
"""Tag of the experiment that holds the view; the page also offers it under "Views"."""

NAME = "Runs with their accuracy"

WIDTHS = {
    "tags.`kind`": 90,
    "tags.`split`": 60,
    "metrics.`accuracy`": 90,
    "metrics.`macro_f1`": 90,
    "tags.`dataset`": 120,
    "tags.`regime`": 90,
}
"""Column -> its pixels, in the order in which the table of runs shows them after the run's name and
age. The first three fit a window of 1,300 beside MLflow's own panels."""


def view() -> str:
    """The value of TAG: the view as MLflow's page saves it."""
    state = {
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": list(WIDTHS),
        "columnOrder": list(WIDTHS),
        "columnWidths": WIDTHS,
    }
    milliseconds = int(1000 * time.time())
    return json.dumps({"name": NAME, "createdAt": milliseconds, "state": json.dumps(state)})


def address(experiment_id: str, server: str) -> str:
    """The address of the view on an MLflow server such as http://127.0.0.1:5000."""
    # Without the second key the page opens on what it has for language models.
    query = f"viewStateShareKey={KEY}&workflowType=machine_learning"
    return f"{server}/#/experiments/{experiment_id}/runs?{query}"
