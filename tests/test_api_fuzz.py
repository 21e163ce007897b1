"""The OpenAPI description against the running API: what it promises holds for thousands of generated requests."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from serving_fixtures import serving, write_tiny_bundle

from bankintent.config import ServeConfig
from bankintent.serving.app import create_app

CASES = 2000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    bundle = write_tiny_bundle(folder / "tiny")
    with serving(folder, MODEL_DIR=str(bundle), config={"evals_dir": str(folder)}) as server:
        yield server
        assert server.metric("bankintent_requests_total") >= CASES
        assert '"event": "error"' not in server.log


api = schemathesis.openapi.from_dict(create_app(ServeConfig()).openapi())
tried = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@api.include(method="POST").parametrize()
@settings(tried, max_examples=1000)
def test_predicting_keeps_its_description(case, server):
    response = case.call(base_url=server.url)
    # How many tokens a text has is nothing that a schema can say.
    too_long = response.status_code == 422 and "truncate is false" in response.text
    case.validate_response(response, excluded_checks=[positive_data_acceptance] if too_long else [])


@api.include(method="GET").parametrize()
@settings(tried, max_examples=40)
def test_everything_else_keeps_its_description(case, server):
    case.call_and_validate(base_url=server.url)
