"""A head that starts from a linear probe: logistic regression on the pretrained encoder's features.

Linear probing, then fine-tuning (Kumar et al., 2022): a random head sends large, useless gradients
into the encoder; a head that fits the frozen features does not.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers import PreTrainedModel

from bankintent.inference.head_inputs import output_layer
from bankintent.training.features import Features, replaced_encoder, runs_on_features

STRENGTH = 0.1
"""Inverse regularisation strength on standardised features, chosen by cross-validation on
BANKING77's train split."""

SMALLEST_SCALE = 0.02
"""Inputs that vary less than this are not scaled up to one: a huge weight would carry the rounding
of float32 along."""

ABSENT = -10.0
"""Bias of a label without training rows: it stays improbable."""

ROWS_AT_ONCE = 4096
"""Cached rows in one forward pass."""

Inputs = NDArray[np.float64]


def warm_start(
    model: PreTrainedModel, features: Features, train_ids: list[int], val_ids: list[int]
) -> float | None:
    """Set the model's last layer to the probe; returns the probe's validation accuracy.

    It is None where there are no validation rows.

    `train_ids` and `val_ids` are the label ids of the rows. The probe reads the inputs of the last
    layer, behind any pooler or dense layer in front of it.
    """
    num_labels = model.config.num_labels
    layer = output_layer(model, num_labels)

    inputs = head_inputs(model, features.table, layer)
    train_inputs = inputs[: features.train_rows]
    val_inputs = inputs[features.train_rows :]

    weight, bias = fit_probe(train_inputs, train_ids, num_labels, layer.bias is not None)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(bias))

    if not val_ids:
        return None
    predicted = (val_inputs @ weight.T + bias).argmax(axis=1)
    return float((predicted == val_ids).mean())


@torch.inference_mode()
def head_inputs(model: PreTrainedModel, table: torch.Tensor, layer: nn.Linear) -> Inputs:
    """(rows, layer.in_features): the inputs of `layer` for each row of `table`, dropout off."""
    if not runs_on_features(model):
        # The table has these very inputs.
        return table.double().numpy()

    captured: list[torch.Tensor] = []

    def capture(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        captured.append(inputs[0].double().cpu())

    # Through the model itself, so that no architecture's head needs code of its own.
    row_numbers = torch.arange(len(table), device=model.device).unsqueeze(1)
    handle = layer.register_forward_pre_hook(capture)
    model.eval()
    try:
        with replaced_encoder(model, table):
            for numbers in row_numbers.split(ROWS_AT_ONCE):
                model(input_ids=numbers, attention_mask=torch.ones_like(numbers))
    finally:
        handle.remove()

    return torch.cat(captured).numpy()


def fit_probe(
    x: Inputs, y: list[int], num_labels: int, has_bias: bool = True
) -> tuple[Inputs, Inputs]:
    """Multinomial logistic regression of the label ids `y` on `x`, (rows, features).

    Returns (num_labels, features) weights and (num_labels,) biases, which are zero without
    `has_bias`.
    """
    mean = x.mean(axis=0)
    # Without a bias to undo it, the inputs stay where they are.
    middle = mean if has_bias else np.zeros_like(mean)
    scale = x.std(axis=0)
    scale = np.maximum(scale, max(0.1 * scale.mean(), SMALLEST_SCALE))

    probe = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-3, fit_intercept=has_bias)
    with warnings.catch_warnings():
        # With few sentences of many intents scikit-learn asks whether the labels are numbers.
        warnings.filterwarnings("ignore", message="The number of unique classes")
        probe.fit((x - middle) / scale, y)

    coefficients = probe.coef_
    intercepts = probe.intercept_
    if len(probe.classes_) == 2:
        # Scikit-learn has one row for two classes: the difference of their logits.
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2

    weight = np.zeros((num_labels, x.shape[1]))
    bias = np.full(num_labels, ABSENT)
    weight[probe.classes_] = coefficients / scale
    bias[probe.classes_] = intercepts

    if not has_bias:
        # The rows of absent labels have ABSENT at the mean of the inputs.
        absent = np.setdiff1d(np.arange(num_labels), probe.classes_)
        weight[absent] = ABSENT * mean / max(float(mean @ mean), 1e-12)
        return weight, np.zeros(num_labels)

    # The standardisation goes into the weights: w.((x - mean) / scale) + b
    bias -= weight @ mean
    return weight, bias
