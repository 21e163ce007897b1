"""The requests of Rasa's, CLU's and LUIS's clients, with the clients of the latter two from PyPI."""

import concurrent.futures
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import schemathesis
from azure.ai.language.conversations import ConversationAnalysisClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
from hypothesis import HealthCheck, settings
from msrest.authentication import CognitiveServicesCredentials
from schemathesis.specs.openapi.checks import allow_header_conformance
from servers import ROOT, Server, environment, serving
from serving_fixtures import LABELS

from bankintent.config import ServeConfig
from bankintent.configfile import load
from bankintent.errors import ConfigError
from bankintent.serving import wire
from bankintent.serving.app import create_app
from bankintent.serving.compat import rasa
from bankintent.serving.compat.answers import Understood
from bankintent.serving.compat.services import DIALECTS

# LUIS's client declares a namespace, which Python 3 needs no longer, by a module that setuptools
# has had no longer since its version 82.
with pytest.MonkeyPatch.context() as patch:
    stand_in = SimpleNamespace(declare_namespace=lambda name: None)
    patch.setitem(sys.modules, "pkg_resources", stand_in)
    from azure.cognitiveservices.language.luis.runtime import LUISRuntimeClient
    from azure.cognitiveservices.language.luis.runtime.models import ErrorException

LuisClient: Any = LUISRuntimeClient
"""As any: the package has no types."""

EVERY = ["rasa", "clu", "luis"]
WAITING = ("--factory", "serving_fixtures:waiting_app")
WAITING_PATH = f"{ROOT}:{ROOT / 'tests'}"

PARSE = "/model/parse"
ANALYZE = "/language/:analyze-conversations"
PREDICT = "/luis/prediction/v3.0/apps/an-app/slots/production/predict"
PATHS = {"rasa": PARSE, "clu": ANALYZE, "luis": PREDICT}

TEXT = "my card has not arrived"
SECRET = "sekretsentence"
CASES = 200
"""Generated requests of each operation."""


def body_of(service: str, text: Any) -> dict[str, Any]:
    """The documented request of a service for a text."""
    item = {"id": "1", "participantId": "1", "modality": "text", "language": "en", "text": text}
    parameters = {"projectName": "a-project", "deploymentName": "a-deployment", "verbose": True}
    bodies = {
        "rasa": {"text": text, "message_id": "b2831e73"},
        "clu": {
            "kind": "Conversation",
            "analysisInput": {"conversationItem": item, "isLoggingEnabled": False},
            "parameters": parameters,
        },
        "luis": {"query": text, "options": {"preferExternalEntities": True}},
    }
    return bodies[service]


def ask(server: Server, service: str, text: Any, **options: Any) -> httpx.Response:
    return server.post(PATHS[service], body_of(service, text), **options)


@dataclass(frozen=True)
class Said:
    """An error as a client of the service reads it."""

    code: str
    message: str


def said(service: str, response: httpx.Response) -> Said:
    """The error of a response; fails where it has not the form of the service."""
    body = response.json()
    if service != "rasa":
        assert body.keys() == {"error"}
        assert body["error"].keys() == {"code", "message"}
        return Said(**body["error"])

    assert body.keys() == {"version", "status", "message", "reason", "details", "help", "code"}
    assert body["status"] == "failure"
    assert body["code"] == response.status_code
    return Said(body["reason"], body["message"])


@pytest.fixture(scope="module")
def every(served_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The API over `served_bundle`, with the routes of every service."""
    folder = tmp_path_factory.mktemp("compat")
    config = {"compat": EVERY, "evals_dir": str(folder)}
    with serving(folder, MODEL_DIR=str(served_bundle), config=config) as server:
        yield server
        assert '"event": "error"' not in server.log


@pytest.fixture(scope="module")
def clu(every: Server) -> ConversationAnalysisClient:
    return ConversationAnalysisClient(every.url, AzureKeyCredential("any"))


@pytest.fixture(scope="module")
def luis(every: Server) -> Any:
    return LuisClient(every.url, CognitiveServicesCredentials("any"))


def predicted(server: Server, text: str) -> list[tuple[str, float]]:
    """Every intent with its probability, as `/predict/` gives them."""
    answer = server.post("/predict/", {"text": text, "top_k": len(LABELS)}).json()
    return [(score["label"], score["score"]) for score in answer["top_k"]]


# Off


def test_by_default_there_are_no_such_routes(server: Server) -> None:
    for service, path in PATHS.items():
        response = ask(server, service, TEXT)
        assert response.status_code == 404, path
        assert response.json().keys() == {"error", "error_type"}
    for path in ("/status", "/version"):
        assert server.get(path).status_code == 404
    assert server.get("/info").json()["compat"] == []


def test_only_the_services_that_are_named_have_routes() -> None:
    for service in DIALECTS:
        paths = create_app(ServeConfig(compat=[service])).openapi()["paths"]
        for other, dialect in DIALECTS.items():
            has_routes = any(path.startswith(dialect.paths) for path in paths)
            assert has_routes == (other == service)


def test_by_default_nothing_of_it_is_imported() -> None:
    program = (
        "import sys\n"
        "from bankintent.config import ServeConfig\n"
        "from bankintent.serving.app import create_app\n"
        "create_app(ServeConfig())\n"
        "print([name for name in sys.modules if 'compat' in name and 'bankintent' in name])\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("words", "says"),
    [("[rasa, clu, rasa]", "rasa stands twice"), ("[dialogflow]", "'rasa', 'clu' or 'luis'")],
)
def test_a_wrong_list_of_services_is_refused(words: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(ServeConfig, None, [f"compat={words}"])


def test_info_names_the_services(every: Server) -> None:
    assert every.get("/info").json()["compat"] == EVERY


# Rasa


def test_rasas_parse_gives_the_intent_and_the_ranking(every: Server) -> None:
    response = ask(every, "rasa", TEXT)
    assert response.status_code == 200

    scores = predicted(every, TEXT)
    ranking = [{"name": label, "confidence": score} for label, score in scores]
    assert response.json() == {
        "text": TEXT,
        "intent": ranking[0],
        "entities": [],
        "intent_ranking": ranking,
    }


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "text/plain", None])
def test_rasas_parse_reads_json_whatever_the_content_type(
    every: Server, content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    content = json.dumps({"text": TEXT}).encode()
    response = httpx.post(every.url + PARSE, content=content, headers=headers)
    assert response.json() == ask(every, "rasa", TEXT).json()


def test_a_rasa_server_may_ask_with_nulls(every: Server) -> None:
    body = {"token": None, "text": TEXT, "message_id": None}
    assert every.post(PARSE, body).json() == ask(every, "rasa", TEXT).json()


def test_rasas_ranking_has_ten_intents_of_more() -> None:
    scores = [wire.Score(label=f"intent {i}", score=(12 - i) / 78) for i in range(12)]
    result = rasa.make_result("a text", Understood(scores, is_answered=True))
    assert [intent.name for intent in result.intent_ranking] == [f"intent {i}" for i in range(10)]


@pytest.mark.parametrize("mode", ["LUIS", "WIT", "none", ""])
def test_rasas_emulation_of_others_is_refused(every: Server, mode: str) -> None:
    response = ask(every, "rasa", TEXT, params={"emulation_mode": mode})
    assert response.status_code == 422
    assert said("rasa", response) == Said(
        "BadRequest", "emulation_mode: not had here; leave it out"
    )


def test_rasas_status_and_version_say_what_is_true(every: Server) -> None:
    info = every.get("/info").json()
    assert every.get("/status").json() == {
        "model_file": "tiny",
        "model_id": info["version"],
        "fingerprint": {"model": info["version"], "labels": info["labels_hash"]},
        "num_active_training_jobs": 0,
    }
    own = info["bankintent"]
    expected = {"version": own, "minimum_compatible_version": own}
    assert every.get("/version").json() == expected


# CLU


@pytest.mark.parametrize("version", ["2023-04-01", "2022-05-01", "2030-01-01-preview"])
def test_azures_client_of_clu_gets_every_intent(every: Server, version: str) -> None:
    with ConversationAnalysisClient(
        every.url, AzureKeyCredential("any"), api_version=version
    ) as client:
        answer = client.analyze_conversation(task=body_of("clu", TEXT))

    scores = predicted(every, TEXT)
    assert answer == {
        "kind": "ConversationResult",
        "result": {
            "query": TEXT,
            "prediction": {
                "topIntent": scores[0][0],
                "projectKind": "Conversation",
                "intents": [
                    {"category": label, "confidenceScore": score} for label, score in scores
                ],
                "entities": [],
            },
        },
    }


def test_azures_client_of_clu_reads_a_refusal(clu: ConversationAnalysisClient) -> None:
    with pytest.raises(HttpResponseError) as caught:
        clu.analyze_conversation(task=body_of("clu", " "))
    assert caught.value.status_code == 422
    assert caught.value.error is not None
    assert caught.value.error.code == "InvalidArgument"
    expected = "analysisInput.conversationItem.text: must not be empty or blank"
    assert caught.value.error.message == expected


@pytest.mark.parametrize("kind", ["CustomConversation", None, 5])
def test_another_kind_of_analysis_is_refused(every: Server, kind: Any) -> None:
    response = every.post(ANALYZE, body_of("clu", TEXT) | {"kind": kind})
    assert response.status_code == 422
    assert said("clu", response) == Said("InvalidArgument", "kind: Input should be 'Conversation'")


# LUIS


def test_azures_client_of_luis_gets_the_best_intent_or_all(every: Server, luis: Any) -> None:
    scores = predicted(every, TEXT)
    request = {"query": TEXT}

    answer = luis.prediction.get_slot_prediction("an-app", "production", request)
    assert answer.query == TEXT
    assert answer.prediction.top_intent == scores[0][0]
    assert answer.prediction.entities == {}
    intents = answer.prediction.intents
    assert [(name, intent.score) for name, intent in intents.items()] == scores[:1]

    calls: list[Callable[..., Any]] = [
        luis.prediction.get_slot_prediction,
        luis.prediction.get_version_prediction,
    ]
    for call in calls:
        answer = call("an-app", "0.1", request, verbose=True, show_all_intents=True, log=True)
        intents = answer.prediction.intents
        assert [(name, intent.score) for name, intent in intents.items()] == scores


def test_azures_client_of_luis_reads_a_refusal(luis: Any) -> None:
    with pytest.raises(ErrorException) as caught:
        luis.prediction.get_slot_prediction("an-app", "production", {"query": ""})
    assert caught.value.response.status_code == 422
    error: Any = caught.value.error
    assert error.error.code == "InvalidArgument"
    assert error.error.message == "query: must not be empty or blank"


@pytest.mark.parametrize("place", ["slots/staging", "versions/0.1"])
def test_luis_takes_the_query_in_the_address_too(every: Server, place: str) -> None:
    path = f"/luis/prediction/v3.0/apps/an-app/{place}/predict"
    parameters = {"query": TEXT, "show-all-intents": "true", "log": "true"}
    response = every.get(path, params=parameters)
    assert response.status_code == 200

    intents = {label: {"score": score} for label, score in predicted(every, TEXT)}
    prediction = {"topIntent": next(iter(intents)), "intents": intents, "entities": {}}
    assert response.json() == {"query": TEXT, "prediction": prediction}


def test_an_address_without_a_query_is_told_what_it_lacks(every: Server) -> None:
    response = every.get(PREDICT)
    assert response.status_code == 422
    assert said("luis", response) == Said("InvalidArgument", "query: Field required")

    response = every.get(PREDICT, params={"query": TEXT, "show-all-intents": "perhaps"})
    assert response.status_code == 422
    assert said("luis", response).message.startswith("show-all-intents: ")


# Refusals


@pytest.mark.parametrize("service", EVERY)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty or blank"),
        (" \n", "empty or blank"),
        (5, "must be a text"),
        ([SECRET], "must be a text"),
        (None, "must be a text"),
        (SECRET + "x" * 5000, "at most 5000"),
    ],
)
def test_a_wrong_text_is_a_422_in_the_words_of_the_service(
    every: Server, service: str, text: Any, says: str
) -> None:
    response = ask(every, service, text)
    assert response.status_code == 422
    error = said(service, response)
    assert error.code == ("BadRequest" if service == "rasa" else "InvalidArgument")
    assert says in error.message
    assert SECRET not in response.text
    assert "X-Request-ID" in response.headers


@pytest.mark.parametrize("service", EVERY)
@pytest.mark.parametrize(
    ("content", "status", "says"),
    [
        (b"[]", 422, "JSON object"),
        (b'{"a": ', 422, "not JSON"),
        (b"", 422, "Field required"),
        (b"{}", 422, "Field required"),
        (b'{"a": "\xff"}', 400, "cannot be read"),
        (b'"' + b"a" * 2_000_000 + b'"', 413, "longer than 1048576 bytes"),
    ],
)
def test_a_wrong_body_is_refused_with_the_status_of_predict(
    every: Server, service: str, content: bytes, status: int, says: str
) -> None:
    headers = {"Content-Type": "application/json"}
    response = httpx.post(every.url + PATHS[service], content=content, headers=headers)
    assert response.status_code == status
    assert says in said(service, response).message

    own = httpx.post(f"{every.url}/predict/", content=content, headers=headers)
    assert own.status_code == status
    assert own.json().keys() == {"error", "error_type"}


@pytest.mark.parametrize("service", EVERY)
def test_a_wrong_method_and_what_is_not_had_have_the_form_of_the_service(
    every: Server, service: str
) -> None:
    response = httpx.delete(every.url + PATHS[service])
    assert response.status_code == 405
    assert "POST" in response.headers["Allow"]
    said(service, response)

    nowhere = {"rasa": "/model/train", "clu": "/language/:query", "luis": "/luis/v2.0/apps/a"}
    response = every.post(nowhere[service], {})
    assert response.status_code == 404
    assert said(service, response).code == "NotFound"


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A model that waits while the file `hold` is there, with a queue of one, a key and a cache."""
    limits = {"max_queue": 1, "max_texts": 1, "deadline_s": 1, "shutdown_s": 30}
    config = {"limits": limits, "compat": EVERY, "cache": 10}
    folder = tmp_path_factory.mktemp("waiting")
    with serving(
        folder, *WAITING, config=config, PYTHONPATH=WAITING_PATH, BANKINTENT_API_KEY="right"
    ) as server:
        yield server


KEY = {"Authorization": "Bearer right"}


def test_a_full_queue_and_a_deadline_are_those_of_predict(waiting: Server) -> None:
    hold = waiting.log_file.parent / "hold"
    began = waiting.log_file.parent / "started"
    for service in EVERY:
        hold.touch()
        text = f"yes slow {service}"
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            slow = pool.submit(ask, waiting, service, text, headers=KEY)
            wait_for(waiting, began, text)

            refused = ask(waiting, service, "yes more", headers=KEY)
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) >= 1
            assert said(service, refused).code == "TooManyRequests"

            late = slow.result()
            assert late.status_code == 504
            assert said(service, late).code == "Timeout"

        hold.unlink()
        waiting.until(lambda server: metric(server, "bankintent_held_texts") == 0)


def wait_for(server: Server, file: Path, text: str) -> None:
    server.until(lambda _: text in file.read_text())


def metric(server: Server, name: str) -> float:
    """The sum of the series of a metric whose lines begin so, of a server with a key."""
    lines = server.get("/metrics", headers=KEY).text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_a_fault_is_a_500_without_details(waiting: Server) -> None:
    for service in EVERY:
        response = ask(waiting, service, f"yes poison {service}", headers=KEY)
        assert response.status_code == 500
        assert said(service, response).message.startswith("internal error; the log has request ")
        assert "poison" not in response.text
    assert "poison" not in waiting.log


def test_the_cache_and_the_counts_are_those_of_predict(waiting: Server) -> None:
    text = "yes cached"
    body = {"text": text}
    assert waiting.post("/predict/", body, headers=KEY).json()["label"] == "yes"
    cached = metric(waiting, "bankintent_cached_answers_total")
    intents = metric(waiting, 'bankintent_predictions_total{intent="yes"}')

    for service in EVERY:
        assert ask(waiting, service, text, headers=KEY).status_code == 200

    assert metric(waiting, "bankintent_cached_answers_total") == cached + 3
    assert metric(waiting, 'bankintent_predictions_total{intent="yes"}') == intents + 3
    routes = (PARSE, ANALYZE, "/luis/prediction/v3.0/apps/{app_id}/slots/{name}/predict")
    for route in routes:
        series = f'bankintent_requests_total{{method="POST",route="{route}",status="200"}}'
        assert metric(waiting, series) >= 1


def test_texts_do_not_reach_the_log(every: Server) -> None:
    for service in EVERY:
        assert ask(every, service, SECRET).status_code == 200
    assert every.get(PREDICT, params={"query": SECRET}).status_code == 200
    assert SECRET not in every.log


def test_while_the_model_is_loading_it_is_a_503(tmp_path: Path) -> None:
    (tmp_path / "loading").touch()
    with serving(
        tmp_path, *WAITING, ready=False, config={"compat": EVERY}, PYTHONPATH=WAITING_PATH
    ) as server:
        for service in EVERY:
            response = ask(server, service, "yes")
            assert response.status_code == 503
            assert int(response.headers["Retry-After"]) >= 1
            assert said(service, response).code == "ServiceUnavailable"
        assert server.get("/status").status_code == 503
        assert server.get("/version").status_code == 200


# The key


@pytest.mark.parametrize("service", EVERY)
def test_with_a_key_nothing_is_answered_without_it(waiting: Server, service: str) -> None:
    wrong: list[dict[str, Any]] = [
        {},
        {"headers": {"Authorization": "Bearer wrong"}},
        {"headers": {"Ocp-Apim-Subscription-Key": "wrong"}},
        {"params": {"token": "wrong"}},
        {"params": {"subscription-key": "wrong"}},
    ]
    for options in wrong:
        response = ask(waiting, service, "yes", **options)
        assert response.status_code == 401
        code = "NotAuthenticated" if service == "rasa" else "Unauthorized"
        assert said(service, response).code == code

    assert ask(waiting, service, "yes", headers=KEY).status_code == 200


def test_rasas_token_is_the_key(waiting: Server) -> None:
    token = {"token": "right"}
    assert ask(waiting, "rasa", "yes", params=token).status_code == 200
    assert waiting.post(PARSE, {"text": "yes", **token}).status_code == 200
    assert waiting.post(PARSE, {"text": "yes", "token": "wrong"}).status_code == 401

    assert waiting.get("/status", params=token).status_code == 200
    assert waiting.get("/status").status_code == 401
    assert "right" not in waiting.log


def test_azures_header_carries_the_key(waiting: Server) -> None:
    right = ConversationAnalysisClient(waiting.url, AzureKeyCredential("right"))
    answer = right.analyze_conversation(task=body_of("clu", "yes"))
    assert answer["result"]["prediction"]["topIntent"] == "yes"

    wrong = ConversationAnalysisClient(waiting.url, AzureKeyCredential("wrong"))
    with pytest.raises(ClientAuthenticationError, match="this API needs its key"):
        wrong.analyze_conversation(task=body_of("clu", "yes"))

    client = LuisClient(waiting.url, CognitiveServicesCredentials("right"))
    answer = client.prediction.get_slot_prediction("an-app", "production", {"query": "no"})
    assert answer.prediction.top_intent == "no"

    parameters = {"query": "no", "subscription-key": "right"}
    assert waiting.get(PREDICT, params=parameters).status_code == 200


# The description


def test_every_example_of_the_description_works_when_pasted(every: Server) -> None:
    schemas = every.get("/openapi.json").json()["components"]["schemas"]
    names = {"ParseRequest": PARSE, "ConversationTask": ANALYZE, "LuisRequest": PREDICT}
    for name, path in names.items():
        examples = schemas[name]["examples"]
        assert examples
        for body in examples:
            assert every.post(path, body).status_code == 200


def test_the_description_says_how_the_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BANKINTENT_API_KEY", "right")
    paths = create_app(ServeConfig.model_validate({"compat": EVERY})).openapi()["paths"]
    for path, ways in ((PARSE, 2), (ANALYZE, 2), ("/status", 2)):
        operation = next(iter(paths[path].values()))
        assert len(operation["security"]) == ways
    assert "security" not in paths["/version"]["get"]


described = create_app(ServeConfig.model_validate({"compat": EVERY})).openapi()
api = schemathesis.openapi.from_dict(described)


@pytest.mark.proof
@api.include(tag=EVERY).parametrize()
@settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    max_examples=CASES,
)
def test_every_generated_request_keeps_the_description(case: Any, every: Server) -> None:
    # Two methods of one path are two routes, and Starlette's Allow has the method of the first.
    case.call_and_validate(base_url=every.url, excluded_checks=[allow_header_conformance])
