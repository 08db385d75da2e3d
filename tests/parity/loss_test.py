"""Losses, their gradients, and metrics, against Keras: its own compiled model evaluates and differentiates the same outputs."""
import keras
import numpy as np
import pytest
import tensorflow as tf
import json_probe

SAMPLES = 24
LIMITS = {"float32": 2e-6, "float64": 1e-12}

losses, metrics = keras.losses, keras.metrics
SPARSE = ["accuracy", "acc", "sparse_categorical_accuracy", metrics.SparseTopKCategoricalAccuracy(k=2, name="top2"),
          "sparse_top_k_categorical_accuracy", "sparse_categorical_crossentropy", metrics.sparse_categorical_accuracy,
          metrics.SparseCategoricalCrossentropy(from_logits=True, name="ce")]
DENSE = ["accuracy", "categorical_accuracy", metrics.TopKCategoricalAccuracy(k=2), "top_k_categorical_accuracy", "binary_accuracy",
         metrics.CategoricalCrossentropy(label_smoothing=0.2), metrics.BinaryAccuracy(threshold=0.3, name="at_0.3")]
BINARY = ["accuracy", "BinaryAccuracy", metrics.BinaryAccuracy(threshold=0.7, name="at_0.7"), "bce", metrics.BinaryCrossentropy()]

# name: (loss, units, classes, activation, metrics). Without an activation the outputs are what they are: logits, or probabilities.
CASES = {
    "sparse-softmax": ("sparse_categorical_crossentropy", 6, 6, "softmax", SPARSE),
    "sparse-logits": (losses.SparseCategoricalCrossentropy(from_logits=True), 6, 6, "logits", SPARSE),
    "sparse-probabilities": ("sparse_categorical_crossentropy", 6, 6, "probabilities", SPARSE),
    "sparse-sigmoid": ("sparse_categorical_crossentropy", 6, 6, "sigmoid", SPARSE),
    "sparse-sum": (losses.SparseCategoricalCrossentropy(reduction="sum"), 6, 6, "softmax", SPARSE),
    "sparse-function": (losses.sparse_categorical_crossentropy, 6, 6, "softmax", ["accuracy"]),
    "by-shape": ("crossentropy", 6, 6, "softmax", ["accuracy"]),
    "dense-softmax": ("categorical_crossentropy", 6, 6, "softmax", DENSE),
    "dense-logits": (losses.CategoricalCrossentropy(from_logits=True), 6, 6, "logits", DENSE),
    "dense-probabilities": (losses.CategoricalCrossentropy(), 6, 6, "probabilities", DENSE),
    "dense-smoothed": (losses.CategoricalCrossentropy(label_smoothing=0.1), 6, 6, "softmax", DENSE),
    "dense-smoothed-probabilities": (losses.CategoricalCrossentropy(label_smoothing=0.1), 6, 6, "probabilities", DENSE),
    "dense-sigmoid": ("categorical_crossentropy", 6, 6, "sigmoid", DENSE),
    "binary-sigmoid": ("binary_crossentropy", 1, 2, "sigmoid", BINARY),
    "binary-logits": (losses.BinaryCrossentropy(from_logits=True), 1, 2, "logits", BINARY),
    "binary-probabilities": ("bce", 1, 2, "probabilities", BINARY),
    "binary-smoothed": (losses.BinaryCrossentropy(label_smoothing=0.2), 1, 2, "sigmoid", BINARY),
    "binary-smoothed-probabilities": (losses.BinaryCrossentropy(label_smoothing=0.2), 1, 2, "probabilities", BINARY),
    "binary-dense": ("binary_crossentropy", 4, 4, "sigmoid", ["accuracy", "binary_accuracy", "categorical_accuracy"]),
    "binary-dense-softmax": ("binary_crossentropy", 4, 4, "softmax", ["binary_accuracy"]),
    "binary-by-shape": ("crossentropy", 1, 2, "sigmoid", ["acc"]),
}


class Scale(keras.layers.Layer):
    """The identity with one variable, so that a model of nothing else can be compiled and trained."""

    def build(self, _):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return inputs * self.scale


def outputs_of(kind, units, random, floatx):
    """Wide logits, some extreme, so that clipping and stable forms show; one tie."""
    logits = random.normal(0, 4, (SAMPLES, units)).astype(floatx)
    logits[0] *= 8
    logits[1] = logits[1, 0]
    if kind == "probabilities":
        probabilities = random.uniform(0, 1, (SAMPLES, units)).astype(floatx)
        probabilities[0] = [0.0] * (units - 1) + [1.0]
        return probabilities
    return logits


def run_keras(loss, units, activation, wanted, values, labels, floatx):
    inputs = keras.Input((units,), dtype=floatx)
    hidden = Scale(dtype=floatx)(inputs)
    outputs = keras.layers.Activation(activation, dtype=floatx)(hidden) if activation in ("softmax", "sigmoid") else hidden
    model = keras.Model(inputs, outputs)
    model.compile("sgd", loss, metrics=wanted)
    compiled = model.get_compile_config()
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    dense = "sparse" not in name and units > 1 and name != "crossentropy"
    targets = np.eye(units, dtype=floatx)[labels] if dense else labels.astype(floatx)[:, None] if units == 1 else labels

    @tf.function
    def differentiate(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = model.compute_loss(x=x, y=tf.convert_to_tensor(targets), y_pred=model(x, training=True))
        return value, tape.gradient(value, x)

    value, gradient = differentiate(tf.convert_to_tensor(values))
    # Keras keeps the sums of its metrics in float32, so that float64 would tell nothing more.
    figures = model.evaluate(values, targets, batch_size=SAMPLES, verbose=0, return_dict=True) if floatx == "float32" else {}
    return compiled, float(value), np.asarray(gradient, dtype=np.float64), figures


@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_losses_gradients_and_metrics(floatx):
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    random = np.random.default_rng(11)
    requests, references = [], {}
    for name, (loss, units, classes, activation, wanted) in CASES.items():
        values = outputs_of(activation, units, random, floatx)
        labels = random.integers(0, classes, SAMPLES)
        # New objects: metrics have state, and losses the floatx that they were made in.
        wanted = [type(m).from_config(m.get_config()) if isinstance(m, keras.metrics.Metric) else m for m in wanted]
        loss = type(loss).from_config(loss.get_config()) if isinstance(loss, keras.losses.Loss) else loss
        compiled, *reference = run_keras(loss, units, activation, wanted, values, labels, floatx)
        references[name] = reference
        requests.append({"compile": compiled, "classes": classes, "outputs": values.tolist(), "logits": values.tolist(),
                         "activation": activation if activation in ("softmax", "sigmoid") else None, "labels": labels.tolist(),
                         "float64": floatx == "float64"})
    ours = json_probe.run("loss_probe", {"cases": requests})["cases"]
    keras.config.set_floatx(before)
    wrong = []
    for (name, (value, gradient, figures)), mine in zip(references.items(), ours):
        if "error" in mine:
            wrong.append(f"{name}: {mine['error']}")
            continue
        compared = {"loss": (mine["loss"], value), "gradient": (np.reshape(mine["gradient"], gradient.shape), gradient)}
        if floatx == "float32":
            assert set(mine["metrics"]) | {"loss"} == set(figures), (name, mine["metrics"], figures)
            compared |= {key: (mine["metrics"][key], figures[key]) for key in mine["metrics"]}
        for key, (a, b) in compared.items():
            deviation = np.abs(np.asarray(a) - b).max() / max(np.abs(b).max(), 1e-3)
            if not deviation <= LIMITS[floatx]:
                wrong.append(f"{name}: {key} differs by {deviation:.1e}")
    assert not wrong, wrong
