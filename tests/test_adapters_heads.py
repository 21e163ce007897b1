"""Heads of several layers on a shared base, in torch and exported; and layers that cannot be shared."""

from pathlib import Path

import numpy as np
import pytest
from adapter_fixtures import make_tenant, make_tenants, require_like_alone
from safetensors.numpy import load_file, save_file

from bankintent.bundle import layout
from bankintent.errors import ModelError
from bankintent.inference.adapters.heads import read_head
from bankintent.inference.adapters.reading import Unsuited, read_adapter
from bankintent.inference.adapters.tenants import open_base


@pytest.mark.parametrize("architecture", ["roberta", "electra", "distilbert"])
def test_each_tenant_has_all_layers_of_its_own_head(architecture: str, tmp_path: Path) -> None:
    from bankintent.export import shared_base

    folder = make_tenants(tmp_path, architecture)
    require_like_alone(open_base(folder / "models" / "a", threads=1), folder)
    shared_base.export(folder / "models" / "b", folder / "base")
    require_like_alone(open_base(folder / "base", threads=1), folder)


def test_a_layer_that_is_computed_once_for_a_batch_cannot_have_adapters(tmp_path: Path) -> None:
    from bankintent.export import shared_base

    tenant = make_tenant(tmp_path / "a", 3, 2, architecture="deberta-v2")
    with pytest.raises(Unsuited, match=r"query_proj, which is computed once for all texts"):
        open_base(tenant, threads=1).load(tenant)
    with pytest.raises(Unsuited, match="computed once for all texts"):
        shared_base.export(tenant, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_another_head_than_that_of_the_exported_base_is_named(tmp_path: Path) -> None:
    """The trunk is the same, and the head of one is a single layer."""
    from bankintent.export import shared_base

    folder = make_tenants(tmp_path, "roberta")
    shared_base.export(folder / "models" / "a", folder / "base")
    other = folder / "models" / "b"
    change_adapter(other, lambda tensors: tensors.pop("base_model.model.classifier.dense.weight"))
    with pytest.raises(Unsuited, match="has a head with"):
        open_base(folder / "base", threads=1).load(other)


def change_adapter(root: Path, change: object) -> None:
    """Change the tensors of an adapter, and seal the bundle anew."""
    path = root / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)  # type: ignore[operator]
    save_file(tensors, path)
    (root / layout.MANIFEST).unlink()
    layout.seal(root, {})


def test_a_head_for_other_labels_is_refused(tmp_path: Path) -> None:
    root = make_tenant(tmp_path / "a", 3, 2)
    wrong = {"base_model.model.classifier.weight": np.zeros((4, 32), np.float32)}
    change_adapter(root, lambda tensors: tensors.update(wrong))
    with pytest.raises(ModelError, match="has 3 labels, and its head 4"):
        read_head(root, read_adapter(root))


def test_a_head_with_more_than_linear_layers_is_a_model_of_its_own(tmp_path: Path) -> None:
    root = make_tenant(tmp_path / "a", 3, 2)
    norm = {"base_model.model.classifier.norm.weight": np.zeros(32, np.float32)}
    change_adapter(root, lambda tensors: tensors.update(norm))
    with pytest.raises(Unsuited, match=r"classifier\.norm\.weight, which is no linear layer"):
        read_head(root, read_adapter(root))
