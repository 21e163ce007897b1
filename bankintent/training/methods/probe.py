"""A head that starts from a linear probe: logistic regression on what the pretrained encoder already says.

Linear probing, then fine-tuning (Kumar et al., 2022): a random head sends large, useless gradients into the encoder;
a head that fits the frozen features does not.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn
from transformers import PreTrainedModel

from bankintent.training import features
from bankintent.training.backbones import output_layer

STRENGTH = 0.1
"""Inverse regularisation strength on standardised features, chosen by cross-validation on BANKING77's train split."""

SMALLEST_SCALE = 0.02
"""Inputs that vary less than this are not blown up to one: a huge weight would carry the rounding of float32 along."""

ABSENT = -10.0
"""Bias of a label without training rows: it stays improbable."""

Inputs = NDArray[np.float64]


def warm_start(
    model: PreTrainedModel, table: torch.Tensor, train: list[int], val: list[int], labels: int
) -> float:
    """Set the model's last layer to the probe; returns the probe's validation accuracy.

    `table` holds the frozen encoder's vectors, (train rows then val rows, hidden). The probe's features are the last
    layer's inputs, behind whatever pooler or dense layer comes before it.
    """
    layer = output_layer(model, labels)
    inputs = head_inputs(model, table, layer)
    x_train, x_val = inputs[: len(train)], inputs[len(train) :]
    weight, bias = fit(x_train, train, labels)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
    return float(((x_val @ weight.T + bias).argmax(axis=1) == val).mean())


@torch.inference_mode()
def head_inputs(model: PreTrainedModel, table: torch.Tensor, layer: nn.Linear) -> Inputs:
    """(rows, layer.in_features): what reaches `layer` for each row of `table`, without dropout."""
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(
        lambda _, inputs: kept.append(inputs[0].double().cpu())
    )
    model.eval()
    try:
        with features.replaced_encoder(model, table):
            for numbers in torch.arange(len(table), device=model.device).unsqueeze(1).split(4096):
                model(input_ids=numbers, attention_mask=torch.ones_like(numbers))
    finally:
        handle.remove()
    return torch.cat(kept).numpy()


def fit(x: Inputs, y: list[int], labels: int) -> tuple[Inputs, Inputs]:
    """(labels, features) weights and (labels,) biases of a multinomial logistic regression; `x` is (rows, features)."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.maximum(scale, max(0.1 * scale.mean(), SMALLEST_SCALE))
    probe = LogisticRegression(C=STRENGTH, max_iter=200, tol=1e-3).fit((x - mean) / scale, y)
    coefficients, intercepts = probe.coef_, probe.intercept_
    if len(probe.classes_) == 2:  # scikit-learn keeps one row for two classes
        coefficients, intercepts = (
            np.concatenate([-part, part]) / 2 for part in (coefficients, intercepts)
        )
    weight, bias = np.zeros((labels, x.shape[1])), np.full(labels, ABSENT)
    weight[probe.classes_], bias[probe.classes_] = coefficients / scale, intercepts
    bias -= weight @ mean  # the standardisation goes into the weights: w.((x - mean) / scale) + b
    return weight, bias
