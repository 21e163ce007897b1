"""A text that the policy refuses is refused on every way to an answer: no route passes it by."""

import csv
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from fastapi.routing import APIRoute
from policy_fixtures import documented, make_geometry, make_policy, make_record
from safetensors.numpy import save_file
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from test_structure import imports, package_files

from bankintent import Model, api_key
from bankintent.config import ScoreConfig, ServeConfig
from bankintent.decision.deciding import Reason, decide
from bankintent.decision.gaussian import Gaussians
from bankintent.decision.policy import (
    POLICY,
    VECTORS,
    Policy,
    ScopeRule,
    Temperature,
    Thresholds,
)
from bankintent.decision.scope_scores import LOGITS_ALONE, NEED_GAUSSIANS, SCORES, gather
from bankintent.decision.vectors import to_arrays
from bankintent.gradio_app import message_tab, table_tab, upload
from bankintent.gradio_app.client import Client
from bankintent.gradio_app.summary import sum_up
from bankintent.inference.runtime import ModelFacts, Outputs, Tokens
from bankintent.labels import LabelSchema
from bankintent.scoring.score import score
from bankintent.serving.app import create_app
from bankintent.serving.service import State

LABELS = ("card_arrival", "change_pin", "exchange_rate")

SURE = "where is my card"
FOREIGN = "what is the weather in paris"
VAGUE = "help me"
CLOSE = "my card or its pin"

LOGITS = {
    SURE: [9.0, 1.0, 0.0],
    FOREIGN: [0.0, 1.0, 3.9],
    VAGUE: [4.2, 4.1, 4.0],
    CLOSE: [9.0, 8.9, 0.0],
}
"""Text -> what the model computes for it: by `make_policy`, it is answered or refused for each of
the reasons."""

REASONS = {SURE: "", FOREIGN: "out_of_scope", VAGUE: "below_threshold", CLOSE: "close_call"}


class KnownRuntime:
    """A model that knows four texts, and counts how often it is asked."""

    def __init__(self) -> None:
        self.facts = ModelFacts(
            "known", "1", LABELS, "h", "none", 0, 100, "a test's", Path("nowhere")
        )
        self.policy: Any = make_policy(LABELS)
        self.workers = 1
        self.calls = 0

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        numbers = list(LOGITS)
        # The texts of the warm-up are others.
        return [
            Tokens({"input_ids": [numbers.index(text) if text in numbers else 0]}, False)
            for text in texts
        ]

    def outputs(self, items: list[Tokens]) -> Outputs:
        self.calls += 1
        known = list(LOGITS.values())
        rows = [known[item.features["input_ids"][0]] for item in items]
        return Outputs(np.array(rows, dtype=np.float32), None)

    def logits(self, items: list[Tokens]) -> Any:
        return self.outputs(items).logits


Connect = Callable[..., TestClient]


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """Makes a client of the API over a KnownRuntime, with every service's routes."""
    monkeypatch.delenv(api_key.KEY_VARIABLE, raising=False)
    clients: list[TestClient] = []

    def make(runtime: Any = None, **settings: Any) -> TestClient:
        config = ServeConfig.model_validate({"compat": ["rasa", "clu", "luis"], **settings})
        app = create_app(config, lambda _: lambda: runtime or KnownRuntime())
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        clients.append(client.__enter__())
        while app.state.service.state is not State.READY:
            client.get("/health/live")
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


# One softmax, one function that decides


SOFTMAX = {
    "audit.answers": "answers out of fold to rows that are audited, none of a served model",
    "decision.deciding": "the one function that decides",
    "decision.temperature_fit": "scores of validation rows, to find the thresholds by",
    "training.methods.pseudo_labels": "training rows without labels, no answers",
}
"""The modules that use a softmax of NumPy arrays, and why."""


def test_softmax_is_used_where_there_is_a_reason_and_nowhere_else() -> None:
    found = set()
    for path in package_files():
        # By any name: imported, or of a module that was.
        if re.search(r"import .*\bsoftmax\b|\.softmax\(", path.read_text(encoding="utf-8")):
            found.add(name_of(path))
    assert found == SOFTMAX.keys()


def test_the_server_decides_in_one_place_and_the_page_nowhere() -> None:
    deciding = set()
    for path in package_files():
        name = name_of(path)
        if not name.startswith(("serving", "gradio_app")):
            continue
        imported = imports(path)
        computing = ("bankintent.measures", "scipy.special")
        assert not any(module.startswith(computing) for module in imported), name
        if "bankintent.decision.deciding.decide" in imported:
            deciding.add(name)
    assert deciding == {"serving.service"}


def name_of(path: Path) -> str:
    """The name of a module within the package."""
    package = REPOSITORY / "bankintent"
    return ".".join(path.relative_to(package).with_suffix("").parts)


# Every route


Read = Callable[[TestClient, str], str]
"""Asks a route about a text; the reason for which it was refused, or "refused" where the route has
no word for the reason, or "" where it was answered."""


def read_own(path: str) -> Read:
    def read(client: TestClient, text: str) -> str:
        single = client.post(path, json={"text": text}).json()
        batch = client.post(path, json={"text": [SURE, text]}).json()
        assert batch == [client.post(path, json={"text": SURE}).json(), single]
        assert (single["decision"] == "abstain") == (single["reason"] != "")
        assert single["in_scope"] == (single["reason"] != "out_of_scope")
        return str(single["reason"])

    return read


def read_named(client: TestClient, text: str) -> str:
    """The model's own path takes the same two kinds of body."""
    path = "/models/known/predict"
    response = client.post(path, json={"inputs": text})
    own = read_own(path)(client, text)
    assert response.headers["X-Decision"] == (f"abstain;reason={own}" if own else "answer")
    return own


def read_both(client: TestClient, text: str) -> str:
    """`/predict` takes two kinds of body."""
    response = client.post("/predict", json={"inputs": [[SURE], [text]]})
    said = response.headers["X-Decision"].split(", ")
    own = read_own("/predict")(client, text)
    assert said == ["answer", f"abstain;reason={own}" if own else "answer"]
    return own


def read_page(client: TestClient, text: str) -> str:
    html = client.post("/", data={"text": text}).text
    return read_shown(html)


def read_shown(html: str) -> str:
    """The reason of the refusal that a page shows."""
    shown = {
        f"Not one of this model's {len(LABELS)} intents": "out_of_scope",
        "Not sure enough to answer": "below_threshold",
        "One of two: card_<wbr>arrival or change_<wbr>pin": "close_call",
    }
    plain = re.sub("</?span[^>]*>", "", html)
    found = [reason for words, reason in shown.items() if words in plain]
    assert ("Nearest intents" in html) == ("refusal" in html) == bool(found)
    return found[0] if found else ""


def read_service(method: str, path: str, **options: Any) -> Read:
    """The reason in the header of another service's answer, whose top intent must agree with it."""

    def read(client: TestClient, text: str) -> str:
        # The text stands where the options have a mark for it.
        own = json.loads(json.dumps(options).replace("TEXT", text))
        response = client.request(method, path, **own)
        assert response.status_code == 200, response.text
        header = response.headers["X-Decision"]
        body = response.json()
        top = top_of(body)
        ranked = ranking_of(body)
        assert top == max(ranked, key=lambda name: ranked[name])
        assert top == next(iter(ranked))

        is_none = top in ("None", "nlu_fallback")
        assert is_none == header.startswith("abstain")
        assert is_none or top == "card_arrival"
        return header.partition("reason=")[2]

    return read


def top_of(body: dict[str, Any]) -> str:
    """The top intent of an answer of Rasa, CLU or LUIS."""
    if "intent" in body:
        return str(body["intent"]["name"])
    return str(prediction_of(body)["topIntent"])


def prediction_of(body: dict[str, Any]) -> Any:
    return body.get("result", body)["prediction"]


def ranking_of(body: dict[str, Any]) -> dict[str, float]:
    """Intent -> score, in the order of the answer."""
    if "intent_ranking" in body:
        return {intent["name"]: intent["confidence"] for intent in body["intent_ranking"]}
    intents = prediction_of(body)["intents"]
    if isinstance(intents, dict):
        return {name: intent["score"] for name, intent in intents.items()}
    return {intent["category"]: intent["confidenceScore"] for intent in intents}


TASK = {
    "kind": "Conversation",
    "analysisInput": {"conversationItem": {"id": "1", "participantId": "1", "text": "TEXT"}},
}
SLOT = "/luis/prediction/v3.0/apps/{app_id}/slots/{name}/predict"
VERSION = "/luis/prediction/v3.0/apps/{app_id}/versions/{name}/predict"
SHOW_ALL = {"show-all-intents": "true"}

PREDICTING: dict[tuple[str, str], Read] = {
    ("POST", "/predict/"): read_own("/predict/"),
    ("POST", "/predict"): read_both,
    ("POST", "/models/{name}/predict"): read_named,
    ("POST", "/"): read_page,
    ("POST", "/model/parse"): read_service("POST", "/model/parse", json={"text": "TEXT"}),
    ("POST", "/language/:analyze-conversations"): read_service(
        "POST", "/language/:analyze-conversations", json=TASK
    ),
    ("POST", SLOT): read_service("POST", SLOT, json={"query": "TEXT"}, params=SHOW_ALL),
    ("POST", VERSION): read_service("POST", VERSION, json={"query": "TEXT"}),
    ("GET", SLOT): read_service("GET", SLOT, params={"query": "TEXT"}),
    ("GET", VERSION): read_service("GET", VERSION, params={"query": "TEXT", **SHOW_ALL}),
}
"""How each route that predicts is asked, and how its refusal is read."""


@pytest.mark.parametrize("text", REASONS)
def test_python_passes_no_decision_by(text: str) -> None:
    model = Model(KnownRuntime())
    prediction = model.predict(text)
    assert prediction.reason == REASONS[text]
    assert prediction.in_scope == (prediction.reason != "out_of_scope")
    assert (prediction.decision == "abstain") == (prediction.reason != "")
    assert prediction.answer == ("card_arrival" if text == SURE else None)
    assert prediction.label in LABELS
    assert prediction.close_to == (("card_arrival", "change_pin") if text == CLOSE else None)

    assert model.predict([SURE, text])[1] == prediction
    assert model.explain(text).prediction == prediction
    calibrated = decide(np.array([LOGITS[text]], dtype=np.float32), None, make_policy(LABELS))
    np.testing.assert_allclose(model.probabilities(text), calibrated.probabilities[0])


OTHERS = (
    "/",
    "/card",
    "/card/{name}.png",
    "/docs",
    "/health/live",
    "/health/ready",
    "/info",
    "/metrics",
    "/models",
    "/openapi.json",
    "/status",
    "/version",
)
"""Routes that take no text, by GET alone."""


def routes_of(routes: Any) -> set[tuple[str, str]]:
    """The method and the path of every route of an app, also of those of its routers."""
    found = set()
    for route in routes:
        if hasattr(route, "original_router"):
            found |= routes_of(route.original_router.routes)
        elif isinstance(route, Mount):
            # Files; anything else would have routes of its own.
            assert isinstance(route.app, StaticFiles)
        else:
            assert isinstance(route, Route | APIRoute)
            methods = (route.methods or set()) - {"HEAD"}
            found |= {(method, route.path) for method in methods}
    return found


def test_every_route_is_known_to_predict_or_not_to(connect: Connect) -> None:
    runtime = KnownRuntime()
    client = connect(runtime)
    named = PREDICTING.keys() | {("GET", path) for path in OTHERS}
    app: Any = client.app
    # A new route is named there with the way in which it refuses, or as one that takes no text.
    assert routes_of(app.routes) == named

    # Those that are said not to predict do not, whatever they are given.
    calls = runtime.calls
    for path in OTHERS:
        client.get(path, params={"query": FOREIGN, "text": FOREIGN, "inputs": FOREIGN})
    assert runtime.calls == calls


def test_every_operation_of_the_description_that_takes_a_text_is_among_them(
    connect: Connect,
) -> None:
    paths = connect().get("/openapi.json").json()["paths"]
    taking = set()
    for path, operations in paths.items():
        for method, operation in operations.items():
            names = {parameter["name"] for parameter in operation.get("parameters", [])}
            if "requestBody" in operation or "query" in names:
                taking.add((method.upper(), path))
    assert len(taking) > 5
    assert taking <= PREDICTING.keys()


@pytest.mark.parametrize("cache", [0, 100])
@pytest.mark.parametrize("route", PREDICTING, ids=" ".join)
def test_no_route_passes_the_decision_by(
    connect: Connect, route: tuple[str, str], cache: int
) -> None:
    client = connect(cache=cache)
    for text, reason in REASONS.items():
        # The second time, with a cache, it is an answer known from before.
        assert [PREDICTING[route](client, text) for _ in range(2)] == [reason, reason]


def test_a_refusal_keeps_the_best_intent_and_the_ranking(connect: Connect) -> None:
    client = connect()
    answer = client.post("/predict/", json={"text": FOREIGN, "top_k": 3}).json()
    assert answer["label"] == "exchange_rate"
    assert [score["label"] for score in answer["top_k"]] == list(reversed(LABELS))
    assert answer["score"] == answer["top_k"][0]["score"]
    assert answer["close_to"] is None

    answer = client.post("/predict/", json={"text": CLOSE}).json()
    assert answer["close_to"] == ["card_arrival", "change_pin"]

    # The same figures as the function that decides.
    logits = np.array([LOGITS[CLOSE]], dtype=np.float32)
    expected = decide(logits, None, make_policy(LABELS)).scores[0]
    assert answer["score"] == pytest.approx(expected, abs=1e-6)


def test_without_a_policy_everything_is_answered_and_the_page_says_so(connect: Connect) -> None:
    runtime = KnownRuntime()
    runtime.policy = None
    client = connect(runtime)
    for route, read in PREDICTING.items():
        if route[1] in ("/predict/", "/predict", "/"):
            assert {read(client, text) for text in REASONS} == {""}
    assert "It has no policy: it answers everything." in client.get("/").text
    assert client.get("/info").json()["policy"] is None


def test_info_says_which_policy_it_is(connect: Connect) -> None:
    client = connect()
    assert client.get("/info").json()["policy"] == {
        "version": make_policy(LABELS).version,
        "target": {"precision": 0.98},
        "promise": {"precision": 0.98, "coverage": 0.9},
    }
    assert "policy" not in client.get("/").text


def test_refusals_are_counted_by_reason_and_not_as_answers(connect: Connect) -> None:
    client = connect()
    client.post("/predict/", json={"text": [*REASONS, SURE]})
    lines = client.get("/metrics").text.splitlines()
    assert 'bankintent_decisions_total{decision="answer",reason=""} 2.0' in lines
    for reason in REASONS.values():
        line = f'bankintent_decisions_total{{decision="abstain",reason="{reason}"}} 1.0'
        assert (line in lines) == bool(reason)
    assert 'bankintent_predictions_total{intent="card_arrival"} 2.0' in lines
    assert not any('intent="exchange_rate"' in line for line in lines)
    assert "bankintent_scores_count 5.0" in lines
    assert not any(text in "\n".join(lines) for text in REASONS)


def test_a_model_with_an_intent_of_that_name_is_not_shown_with_it_twice(connect: Connect) -> None:
    runtime = KnownRuntime()
    labels = ("None", "change_pin", "nlu_fallback")
    runtime.facts = ModelFacts("known", "1", labels, "h", "none", 0, 100, "a test's", Path())
    client = connect(runtime)

    body = {"analysisInput": {"conversationItem": {"text": FOREIGN}}, "kind": "Conversation"}
    intents = ranking_of(client.post("/language/:analyze-conversations", json=body).json())
    assert list(intents) == ["None", "nlu_fallback", "change_pin"]
    assert intents["None"] == 1
    ranking = client.post("/model/parse", json={"text": FOREIGN}).json()["intent_ranking"]
    assert [intent["name"] for intent in ranking] == ["nlu_fallback", "change_pin", "None"]

    # Where it is the answer, it is one like others.
    answer = client.post(SLOT, json={"query": SURE}).json()
    assert answer["prediction"]["topIntent"] == "None"
    assert answer["prediction"]["intents"]["None"]["score"] < 1


# Files


def test_scoring_a_file_refuses_the_same_texts(tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text\n" + "".join(f"{text}\n" for text in REASONS))
    output = tmp_path / "out.csv"
    settings = ScoreConfig(input=source, output=output, model_dir=tmp_path)
    score(settings, load=KnownRuntime)

    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    logits = np.array([LOGITS[text] for text in REASONS], dtype=np.float32)
    expected = decide(logits, None, make_policy(LABELS))
    assert [row["decision"] for row in rows] == ["answer", "abstain", "abstain", "abstain"]
    assert [row["label"] for row in rows] == [LABELS[label] for label in expected.labels]
    scores = [float(row["score"]) for row in rows]
    np.testing.assert_allclose(scores, expected.scores, atol=1e-6)


# Without bankintent


@pytest.mark.parametrize("name", [*SCORES, None])
def test_the_documented_lines_of_numpy_decide_as_the_server_does(
    name: str | None, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    logits = draw.normal(scale=3, size=(200, 3)).astype(np.float32)
    features = draw.normal(size=(200, 5)).astype(np.float32)

    def matrix(*shape: int) -> Any:
        return draw.normal(size=shape).astype(np.float32)

    gaussians = None
    if name in NEED_GAUSSIANS:
        is_normalised = name.endswith("_normalised")
        gaussians = Gaussians(
            matrix(5), matrix(5, 5), matrix(3, 5), matrix(5, 5), normalised=is_normalised
        )
    needs_features = name is not None and name not in LOGITS_ALONE
    geometry = make_geometry(matrix(3, 5), gaussians) if needs_features else None

    # The rule that refuses a fifth of the texts.
    rule = None
    if name is not None:
        least = float(np.quantile(SCORES[name](gather(logits, features, geometry)), 0.2))
        rule = ScopeRule({name: 2.0}, threshold=2 * least)
    record = make_record(
        LABELS,
        out_of_scope=rule,
        temperature=Temperature(bias=0.2, own=-0.5, other=0.4),
        thresholds=Thresholds(shared=0.9, per_intent={"change_pin": 0.8}),
        vectors="0" * 64 if needs_features else None,
    )
    (tmp_path / POLICY).write_text(record.to_json())
    LabelSchema(LABELS).save(tmp_path / "labels.json")
    if geometry is not None:
        save_file(to_arrays(geometry), tmp_path / VECTORS)

    found = documented("decide", tmp_path)(tmp_path, logits, features)
    expected = decide(logits, features, Policy(record, LABELS, geometry))
    reasons = {answer["reason"] for answer in found}
    every = set(Reason) if rule is not None else set(Reason) - {Reason.OUT_OF_SCOPE}
    assert reasons in (every, every - {Reason.BELOW_THRESHOLD})
    assert rule is not None or Reason.BELOW_THRESHOLD in reasons
    for row, answer in enumerate(found):
        decision = expected.of(row)
        assert answer["label"] == LABELS[decision.label]
        assert answer["score"] == pytest.approx(decision.score, abs=1e-5)
        assert (answer["decision"], answer["reason"]) == (decision.verdict, decision.reason)


# The Gradio page


@pytest.fixture
def page_client(connect: Connect) -> Client:
    """The page's client of that API."""
    client = Client("http://127.0.0.1")
    client._http = connect()
    return client


def test_the_gradio_page_shows_a_refusal_as_one(page_client: Client) -> None:
    for text, reason in REASONS.items():
        html = message_tab.predict_message(page_client, text, 3)
        assert read_shown(html) == reason
        assert "100 %" not in html
    assert message_tab.describe_policy(page_client) == ""


def test_a_table_says_which_rows_are_refused(page_client: Client, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("text,label\n" + "".join(f"{text},card_arrival\n" for text in REASONS))
    keys = upload.LabelledTableKeys(label_column="label")
    table = upload.read_upload(source, 10, keys)
    answers = upload.score_upload(page_client, table, lambda share: None)

    rows = upload.add_answers(table.rows, answers).to_pylist()
    assert [row["reason"] for row in rows] == list(REASONS.values())
    assert [row["decision"] for row in rows] == ["answer", "abstain", "abstain", "abstain"]
    assert [row["predicted_intent"] for row in rows][1] == "exchange_rate"
    assert [row["second"] for row in rows] == ["change_pin"] * 4
    assert all(0 <= row["margin"] <= row["score"] for row in rows)

    summary = sum_up(answers, table.labels, LABELS)
    assert (summary.predicted, summary.refused_rows) == (1, 3)
    assert [count.name for count in summary.intents] == ["card_arrival"]
    assert summary.labelled is not None
    assert summary.labelled.accuracy is not None
    assert summary.labelled.accuracy.rows == 1
    html = table_tab.render_scored_rows(table, answers)
    assert "not one of the intents" in html
    assert "exchange" not in html


@pytest.mark.parametrize(
    "change",
    [
        {"decision": "perhaps"},
        {"decision": ["abstain"]},
        {"reason": None},
        {"close_to": "ab"},
        {"close_to": ["a"]},
        {"close_to": [1, 2]},
    ],
)
def test_an_odd_decision_is_not_taken_for_an_answer(change: dict[str, Any]) -> None:
    from bankintent.gradio_app.client import Trouble, read_decision

    body = {"decision": "abstain", "reason": "close_call", "close_to": ["a", "b"]}
    assert not read_decision(body).is_answer
    with pytest.raises(Trouble):
        read_decision(body | change)
