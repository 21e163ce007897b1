"""A head that starts from a linear probe: logistic regression on what the pretrained encoder already says.

Linear probing, then fine-tuning (Kumar et al., 2022): a random head sends large, useless gradients into the encoder;
a head that fits the frozen features does not.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from bankintent.corpus.dataset import SplitData
from bankintent.inference.predictor import Predictor
from bankintent.labels import LabelSchema
from bankintent.training.backbones import Backbone

STRENGTHS = (0.03, 0.3, 3.0)
"""Inverse regularisation strengths tried, on standardised features."""

ABSENT = -10.0
"""Bias of a label without training rows: it stays improbable."""

Features = NDArray[np.float64]


def warm_start(backbone: Backbone, train: SplitData, val: SplitData, labels: LabelSchema, batch_size: int) -> float:
    """Set the classifier's last layer to the probe; returns the probe's validation accuracy.

    The features are that layer's inputs, behind whatever pooler or dense layer comes before it. Of the regularisation
    strengths the one with the best validation accuracy is taken.
    """
    layer = output_layer(backbone.model, len(labels))
    predictor = Predictor(backbone.model, backbone.tokenizer, labels)
    x_train, x_val = (features(layer, predictor, rows.texts, batch_size) for rows in (train, val))
    mean, scale = x_train.mean(axis=0), x_train.std(axis=0) + 1e-6
    best_accuracy, best = -1.0, (np.zeros(0), np.zeros(0))
    for strength in STRENGTHS:
        weight, bias = _fit((x_train - mean) / scale, train.labels, len(labels), strength)
        accuracy = float((((x_val - mean) / scale @ weight.T + bias).argmax(axis=1) == val.labels).mean())
        if accuracy > best_accuracy:
            best_accuracy, best = accuracy, (weight, bias)
    weight, bias = best
    with torch.no_grad():  # the standardisation goes into the weights: w.((x - mean) / scale) + b
        layer.weight.copy_(torch.from_numpy(weight / scale))
        layer.bias.copy_(torch.from_numpy(bias - (weight / scale) @ mean))
    return best_accuracy


def output_layer(model: nn.Module, labels: int) -> nn.Linear:
    """The last linear layer of the model, which gives the logits."""
    return [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == labels][-1]


def features(layer: nn.Linear, predictor: Predictor, texts: list[str], batch_size: int) -> Features:
    """(texts, layer.in_features): what reaches `layer` for each text, without dropout."""
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, inputs: kept.append(inputs[0].double().cpu()))
    try:
        order = predictor.order(texts)
        predictor.logits(texts, batch_size)
    finally:
        handle.remove()
    out = np.empty((len(texts), layer.in_features))
    out[order] = torch.cat(kept).numpy()
    return out


def _fit(x: Features, y: list[int], labels: int, strength: float) -> tuple[Features, Features]:
    """(labels, features) weights and (labels,) biases of a multinomial logistic regression."""
    probe = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(x, y)
    coefficients, intercepts = probe.coef_, probe.intercept_
    if len(probe.classes_) == 2:  # scikit-learn keeps one row for two classes
        coefficients, intercepts = (np.concatenate([-part, part]) / 2 for part in (coefficients, intercepts))
    weight, bias = np.zeros((labels, x.shape[1])), np.full(labels, ABSENT)
    weight[probe.classes_], bias[probe.classes_] = coefficients, intercepts
    return weight, bias
