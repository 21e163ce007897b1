"""Rows of different adapters in one batch of a shared base in torch."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from adapter_fixtures import (
    TEXTS,
    alone,
    make_tenants,
    require_like_alone,
    require_undisturbed,
    serve_on,
)

import bankintent
from bankintent.bundle import layout
from bankintent.errors import ModelError


@pytest.fixture(scope="module")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two tenants with other labels, ranks and heads, and the merged model of each."""
    return make_tenants(tmp_path_factory.mktemp("tenants"))


def test_a_mixed_batch_answers_as_each_model_alone(tenants: Path) -> None:
    from bankintent.inference.adapters.tenants import open_base

    require_like_alone(open_base(tenants / "models" / "a", threads=1), tenants)


def test_adapters_come_and_go_while_batches_run(tenants: Path) -> None:
    from bankintent.inference.adapters.tenants import open_base

    require_undisturbed(open_base(tenants / "models" / "a", threads=2), tenants)


def test_a_server_answers_each_tenant_from_one_base(tenants: Path) -> None:
    for runtime in serve_on(tenants / "models" / "a", tenants):
        assert runtime.startswith("torch ")
        assert runtime.endswith("on a shared base")


def test_a_folder_without_an_adapter_is_no_base(tenants: Path) -> None:
    from bankintent.inference.adapters.tenants import open_base

    with pytest.raises(ModelError, match="holds no adapter/"):
        open_base(tenants / "models" / "merged_3")


def test_adapters_are_swapped_by_name_in_python(tenants: Path) -> None:
    folder = tenants / "models"
    adapters = bankintent.load_adapters(folder / "a", {"cards": folder / "a"}, threads=1)
    assert list(adapters) == ["cards"]
    np.testing.assert_allclose(adapters["cards"].logits(TEXTS), alone(tenants, 3), atol=1e-4)

    adapters.add("loans", folder / "b")
    assert len(adapters["loans"].labels) == 5
    kept = adapters["cards"]
    adapters.remove("cards")
    assert list(adapters) == ["loans"]
    assert len(kept.predict(TEXTS)) == len(TEXTS)
    with pytest.raises(bankintent.UserError, match="holds no adapter/"):
        adapters.add("loans", folder / "merged_3")
    assert len(adapters["loans"].labels) == 5


def test_a_tenant_that_reads_shorter_texts_is_a_model_of_its_own(
    tenants: Path, tmp_path: Path
) -> None:
    from bankintent.inference.adapters.reading import Unsuited
    from bankintent.inference.adapters.tenants import open_base
    from bankintent.serving.tenants import AdapterBases

    short = tmp_path / "short"
    shutil.copytree(tenants / "models" / "b", short)
    settings = short / "base_5" / "tokenizer_config.json"
    values = json.loads(settings.read_text()) | {"model_max_length": 6}
    settings.write_text(json.dumps(values))
    (short / layout.MANIFEST).unlink()
    layout.seal(short, {})

    base = open_base(tenants / "models" / "a", threads=1)
    with pytest.raises(Unsuited, match="a base with other tokenizer"):
        base.load(short)
    # A server goes on to find it as any other model.
    assert AdapterBases().find(short, base) is None
    assert AdapterBases().find(tenants / "models" / "b", base) is not None
