"""What is sent to the API and its pages: hostile bodies, blanks, HEAD, keys, a proxy's prefix."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import numpy as np
import pyarrow as pa
import pytest
from faults import request_bodies
from servers import ROOT, serving
from serving_fixtures import WaitingRuntime, write_tiny_model
from starlette.testclient import TestClient

from bankintent import api_key
from bankintent.config import LimitsSection, ServeConfig
from bankintent.errors import ConfigError
from bankintent.inference.runtime import Tokens, never_empty
from bankintent.scoring.precheck import has_text
from bankintent.serving import bounded
from bankintent.serving.app import create_app
from bankintent.serving.refusals import Invalid, Malformed
from bankintent.serving.service import State
from bankintent.texts import is_blank

Connect = Callable[..., TestClient]
"""Makes a client of an app over a WaitingRuntime: settings, and `prefix` for its ASGI scope."""

GETS = ("/", "/health/live", "/health/ready", "/info", "/metrics", "/card", "/docs", "/nowhere")
LINK = re.compile(r'(?:href|src|action|url)(?:=|: )["\']([^"\'#]+)["\']')
BROWSER = {"Accept": "text/html"}

BLANK = [
    "",
    " \n\t",
    "\u200b",
    "\ufeff\u2060",
    "\ufe0f\ufe0e",
    "\u00ad\u061c",
    "\x00\x01\x1b\x7f",
    "\u0085\u009f",
    "\u00a0\u2003\u3000\u2028",
    "\u3164\uffa0",
    "\U000e0001\U000e0041",
    "\U000e0100",
]
"""Texts that show nothing."""

NOT_BLANK = ["a", ".", "\u0301", "\U0001f4e6", "\u4e2d", "0", "\ufffd", "\u200b-"]


@pytest.fixture
def connect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    monkeypatch.delenv(api_key.KEY_VARIABLE, raising=False)
    clients: list[TestClient] = []

    def make(*, prefix: str = "", runtime: Any = WaitingRuntime, **settings: Any) -> TestClient:
        app = create_app(ServeConfig(**settings), lambda _: lambda: runtime(tmp_path))
        client = TestClient(app, root_path=prefix, raise_server_exceptions=False)
        clients.append(client.__enter__())
        while app.state.service.state is not State.READY:
            client.get("/health/live")
        return client

    yield make
    for client in clients:
        client.__exit__(None, None, None)


# Bodies


def test_a_sample_of_hostile_requests_is_answered_or_refused_at_once() -> None:
    tally = request_bodies.run(30)
    assert tally.tried == 30
    assert tally.gave_way == []


def test_values_are_counted_where_they_are_no_part_of_a_text() -> None:
    limits = LimitsSection(max_texts=10)
    most = 2 * limits.max_texts + bounded.OTHER_VALUES

    marks = json.dumps({"text": ['[{,"\\' * 800] * 10}).encode()
    bounded.check_json(marks, limits)
    bounded.check_json(json.dumps({"text": "a", "more": [1] * (most - 4)}).encode(), limits)
    for value in (
        [1] * (most + 2),
        ["a"] * (most + 2),
        [[]] * most,
        {str(i): 1 for i in range(most + 2)},
    ):
        with pytest.raises(Invalid, match="at most 10 texts"):
            bounded.check_json(json.dumps({"text": value}).encode(), limits)
        with pytest.raises(Invalid):
            bounded.check_json(json.dumps({"text": value}).encode("utf-16"), limits)

    for unreadable in (b'{"text": "\xff"}', b"[" * 50_000):
        with pytest.raises(Malformed):
            bounded.check_json(unreadable, limits)


def test_as_many_texts_as_the_limit_allows_are_answered(connect: Connect) -> None:
    client = connect(limits={"max_texts": 500})
    assert len(client.post("/predict/", json={"text": ["yes ,[{"] * 500}).json()) == 500
    assert len(client.post("/predict", json={"inputs": [["yes"]] * 500}).json()) == 500

    refused = client.post("/predict/", json={"text": ["yes"] * 501})
    assert refused.status_code == 422
    assert "501 texts in one request; at most 500" in refused.json()["error"]


def test_the_first_wrong_item_of_a_list_ends_its_check(connect: Connect) -> None:
    response = connect().post("/predict/", json={"text": ["yes", 1, 2, ""]})
    assert response.json()["error"] == "text.1: must be a text"


def test_a_form_and_an_address_have_bounds_too(connect: Connect) -> None:
    client = connect(compat=["rasa", "luis"])
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert "yes" in client.post("/", content=b"key=&text=yes+%c3%a9", headers=form).text
    for content in (b"text=a&" * 101, b"text=" + b"a" * 100_000):
        response = client.post("/", content=content, headers=form)
        assert response.status_code == 422
        assert "the form" in response.text

    for path in (request_bodies.LUIS, "/status"):
        response = client.get(f"{path}?query=a{'&a' * 101}")
        assert response.status_code == 422
        assert "the address has more than 100 fields" in response.text


# Blanks


@pytest.mark.parametrize("text", BLANK)
def test_a_text_that_shows_nothing_is_blank_everywhere(connect: Connect, text: str) -> None:
    assert is_blank(text)
    assert has_text(pa.array([text, None, "a"])).tolist() == [False, False, True]

    client = connect(compat=["rasa", "luis"])
    for path, body in (
        ("/predict/", {"text": ["yes", text]}),
        ("/predict", {"inputs": [["yes"], [text]]}),
        ("/model/parse", {"text": text}),
        (request_bodies.LUIS, {"query": text}),
    ):
        response = client.post(path, json=body)
        assert response.status_code == 422
        assert "must not be empty or blank" in response.text

    assert client.get(request_bodies.LUIS, params={"query": text}).status_code == 422
    assert "Type a sentence first." in client.post("/", data={"text": text}).text


@pytest.mark.parametrize("text", NOT_BLANK)
def test_a_text_that_shows_something_is_answered(connect: Connect, text: str) -> None:
    assert not is_blank(text)
    assert has_text(pa.array([text])).tolist() == [True]
    assert connect().post("/predict/", json={"text": text}).status_code == 200


class ReadsOnlyLetters(WaitingRuntime):
    """A model whose tokenizer marks no ends of a text and drops whatever is no letter."""

    def tokenize(self, texts: list[str]) -> list[Tokens]:
        items = super().tokenize(texts)
        for index, text in enumerate(texts):
            if not any(map(str.isalpha, text)):
                items[index] = Tokens({"input_ids": []}, False)
        return items


def test_a_text_of_which_the_model_reads_nothing_is_refused_and_costs_no_neighbour(
    connect: Connect,
) -> None:
    client = connect(runtime=ReadsOnlyLetters, compat=["rasa"])
    for body in ({"text": "?"}, {"text": ["yes", "?"]}):
        response = client.post("/predict/", json=body)
        assert response.status_code == 422
        assert "blank to this model" in response.json()["error"]
    assert client.post("/model/parse", json={"text": "?"}).json()["code"] == 422
    assert client.post("/predict/", json={"text": ["yes", "no"]}).status_code == 200


def test_without_tokens_an_answer_does_not_depend_on_the_batch(tmp_path: Path) -> None:
    from tiny_models import tiny_tokenizer
    from tokenizers.processors import TemplateProcessing

    from bankintent.inference.predictor import Predictor

    tokenizer = tiny_tokenizer(["my card"], model_max_length=32)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])
    predictor = Predictor.load(write_tiny_model(tmp_path / "model", tokenizer))
    nothing = "\u200b"
    assert predictor.encode([nothing])[0]["input_ids"] == []

    alone = predictor.logits([nothing])
    beside = predictor.logits([nothing, "my card my card"])
    assert np.isfinite(alone).all()
    assert np.abs(beside[:1] - alone).max() < 1e-5


def test_a_text_without_tokens_becomes_one_of_padding() -> None:
    features = {"input_ids": [], "attention_mask": [], "token_type_ids": []}
    expected = {"input_ids": [7], "attention_mask": [1], "token_type_ids": [0]}
    assert never_empty(features, 7) == expected
    assert never_empty(expected, 3) is expected


# HEAD


def test_head_is_get_without_a_body(tmp_path: Path) -> None:
    config = {"compat": ["rasa"]}
    path = f"{ROOT}:{ROOT / 'tests'}"
    app = ("--factory", "serving_fixtures:waiting_app", "--root-path", "/intents")
    with serving(tmp_path, *app, config=config, PYTHONPATH=path) as server:
        for address in (*GETS, "/version", "/model/nowhere", "/intents/info"):
            got = httpx.get(server.url + address)
            # One connection: a body that was sent all the same would be read as the next answer.
            with httpx.Client() as client:
                head = client.head(server.url + address)
                assert client.get(server.url + "/health/live").json() == {"status": "live"}
            assert head.status_code == got.status_code
            assert head.content == b""
            # Metrics change between two requests.
            left_out = {"x-request-id", "date", "content-length" if address == "/metrics" else ""}
            for name in got.headers.keys() - left_out:
                assert head.headers[name] == got.headers[name]

        assert httpx.head(f"{server.url}/predict/").headers["Allow"] == "POST"
        assert 'method="HEAD",route="/info"' in server.get("/metrics").text
        options = httpx.options(f"{server.url}/info")
        assert (options.status_code, options.json()["error_type"]) == (405, "method_not_allowed")


# Keys


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_break_at_the_end_of_a_key_is_no_part_of_it(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    client = connect()
    monkeypatch.setenv(api_key.KEY_VARIABLE, f"right!~{end}")
    client = connect()
    assert client.get("/info").status_code == 401
    assert client.get("/info", headers={"Authorization": "Bearer right!~"}).status_code == 200


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("", "is set but empty"),
        ("\n", "is set but empty"),
        ("\u00a0", "is set but empty"),
        ("sekret\n\n", "more than one line"),
        ("sek\nret", "more than one line"),
        ("sekret ", "a blank"),
        ("sek ret", "a blank"),
        ("sek\tret", "a control character"),
        ("sekret\x7f", "a control character"),
        ("sekr\u00e9t", "not ASCII"),
        ("sekret\u200b", "not ASCII"),
        ("sekret\udcff", "not ASCII"),
    ],
)
def test_a_key_that_no_header_can_hold_stops_the_start_and_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, key: str, says: str
) -> None:
    monkeypatch.setenv(api_key.KEY_VARIABLE, key)
    with pytest.raises(ConfigError, match=says) as caught:
        create_app(ServeConfig())
    assert "sek" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# Behind a proxy


def links_of(client: TestClient, address: str) -> list[str]:
    """Where the links of a page lead, as a browser at this address resolves them."""
    response = client.get(address, headers=BROWSER)
    assert response.status_code == 200
    return [urljoin(address, link) for link in LINK.findall(response.text)]


@pytest.mark.parametrize(
    ("prefix", "setting", "before"),
    [
        ("", "", ""),
        ("/intents", "", ""),
        ("/intents", "", "/intents"),
        ("/intents", "", "/intents/intents"),
        ("/intents/", "", "/intents/"),
        ("/a/b", "", "/a/b"),
        ("/", "", ""),
        ("", "/intents", ""),
        ("", "/intents/", "/intents"),
    ],
)
def test_every_link_of_every_page_works_behind_a_prefix(
    connect: Connect, prefix: str, setting: str, before: str
) -> None:
    client = connect(prefix=prefix, root_path=setting, compat=["rasa"])
    root = (setting or prefix).rstrip("/")

    for page in ("/", "/card", "/docs"):
        links = links_of(client, before + page)
        assert len(links) >= 3
        for link in links:
            assert link.startswith(f"{root}/")
            assert client.get(link).status_code == 200

    answer = client.post(f"{before}/", data={"text": "yes"})
    assert "yes" in answer.text
    assert client.post(f"{before}/predict/", json={"text": "yes"}).json()["label"] == "yes"
    assert client.post(f"{before}/model/parse", json={"text": ""}).json()["status"] == "failure"
    servers = client.get(f"{before}/openapi.json").json().get("servers")
    assert servers == ([{"url": root}] if root else None)


def test_a_prefix_without_a_slash_at_its_end_is_the_page(connect: Connect) -> None:
    client = connect(prefix="/intents")
    for link in links_of(client, "/intents"):
        assert client.get(link).status_code == 200


def test_links_are_relative_where_no_prefix_is_known(connect: Connect) -> None:
    client = connect()
    for page in ("/", "/card", "/docs"):
        for link in LINK.findall(client.get(page, headers=BROWSER).text):
            assert not link.startswith("/")

    script = (ROOT / "bankintent/serving/page/static/page.js").read_text()
    assert "fetch(form.action" in script


def test_a_prefix_of_another_form_is_refused() -> None:
    from bankintent.configfile import load

    for wrong in ("intents", "/a b", "//", "/a?b", "http://host/a"):
        with pytest.raises(ConfigError, match="root_path"):
            load(ServeConfig, None, [f"root_path={json.dumps(wrong)}"])
