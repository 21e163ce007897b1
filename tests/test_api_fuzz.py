"""The OpenAPI document against the running API: it holds for every generated request.

The variable FUZZ_CASES is the number of them for each operation that predicts, in `make proofs`
1,000.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from servers import Server, serving

from bankintent.config import ServeConfig
from bankintent.serving.app import create_app

CASES = int(os.environ.get("FUZZ_CASES", "100"))
CASES_OF_OTHERS = 40

api = schemathesis.openapi.from_dict(create_app(ServeConfig()).openapi())
repeatable = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def server(served_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("fuzz")
    with serving(folder, MODEL_DIR=str(served_bundle), config={"evals_dir": str(folder)}) as server:
        yield server
        assert server.metric("bankintent_requests_total") >= 2 * CASES
        assert '"event": "error"' not in server.log


@api.include(method="POST").parametrize()
@settings(repeatable, max_examples=CASES)
def test_predicting_keeps_its_description(case: Any, server: Server) -> None:
    response = case.call(base_url=server.url)

    # No schema can tell how many tokens a text has, or how many texts the settings explain at once.
    is_refused = response.status_code == 422
    too_long = is_refused and "truncate is false" in response.text
    too_many = is_refused and "are explained at once" in response.text
    excluded = [positive_data_acceptance] if too_long or too_many else []
    case.validate_response(response, excluded_checks=excluded)


@api.include(method="GET").parametrize()
@settings(repeatable, max_examples=min(CASES, CASES_OF_OTHERS))
def test_everything_else_keeps_its_description(case: Any, server: Server) -> None:
    case.call_and_validate(base_url=server.url)
