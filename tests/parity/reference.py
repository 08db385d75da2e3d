"""What the parity tests share: models of Keras with random state, its own results for them, and those of our probe."""
import io
import os
import pathlib
import subprocess
import zipfile

import h5py
import keras
import numpy as np
import tensorflow as tf


def randomise(model: keras.Model, seed: int) -> None:
    """Gives every variable a value that no other has. With the initial ones, gamma = 1, beta = 0 and moving statistics 0 and 1
    would hide most mistakes."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.dtype not in ("float32", "float64") or variable.name in ("mean", "variance"):
            continue  # seeds; and Normalization's, of which the layer keeps copies
        shape, name = tuple(variable.shape), variable.name
        if name == "moving_variance":
            value = random.uniform(0.5, 1.5, shape)
        elif name == "gamma" and "layer_scale" not in variable.path:
            value = random.uniform(0.3, 1.0, shape)
        elif name == "beta":
            # Around 0, and with gamma around 1, random residual networks are chaotic: Keras itself is 2e-4 off its float64 results.
            value = random.normal(0.5, 0.3, shape)
        elif "kernel" in name:
            if "depthwise" in variable.path or name == "depthwise_kernel":
                inputs = np.prod(shape[:-2])
            else:
                inputs = np.prod(shape[:-1])
            value = random.normal(0, 1, shape) * np.sqrt(2 / max(inputs, 1))
        else:
            value = random.normal(0, 0.2, shape)
        variable.assign(value)


def calibrate(model: keras.Model, images: np.ndarray, seed: int) -> None:
    """Makes moving statistics those of the images, but for a random factor. With arbitrary ones the activations of deep networks grow
    or vanish, and their logits say more about rounding than about the layers."""
    random = np.random.default_rng(seed)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    model(images, training=True)
    for layer, momentum in zip(norms, momenta):
        layer.momentum = momentum
        layer.moving_mean.assign(layer.moving_mean * random.uniform(0.8, 1.25, layer.moving_mean.shape))
        layer.moving_variance.assign(layer.moving_variance * random.uniform(0.8, 1.25, layer.moving_variance.shape))


def arrays_of(file: h5py.File) -> dict[str, np.ndarray]:
    """Every array by its path."""
    arrays = {}

    def visit(name, node):
        if isinstance(node, h5py.Dataset):
            arrays[name] = node[()]

    file.visititems(visit)
    return arrays


def hdf5_paths(model: keras.Model, archive: pathlib.Path) -> dict[str, str]:
    """The path in the weights file of each variable (by its id), found by its value: the test does not repeat our naming."""
    with zipfile.ZipFile(archive) as zipped, h5py.File(io.BytesIO(zipped.read("model.weights.h5"))) as weights:
        by_value = {value.tobytes(): name for name, value in arrays_of(weights).items()}
    return {id(variable): by_value[np.asarray(variable.value).tobytes()] for variable in model.variables if variable.dtype.startswith("float")}


class Case:
    """One model in one folder, with its inputs."""

    def __init__(self, folder: pathlib.Path, model: keras.Model, images: np.ndarray, seed: int = 1, labels: np.ndarray | None = None):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.model, self.images, self.labels = folder, model, images, labels
        randomise(model, seed)
        calibrate(model, images, seed)
        model.save(folder / "model.keras")
        self.paths = hdf5_paths(model, folder / "model.keras")
        with h5py.File(folder / "inputs.h5", "w") as file:
            file["images"] = images
            if labels is not None:
                file["labels"] = labels
            else:
                shape = (images.shape[0], *model.output_shape[1:])
                self.cotangent = np.random.default_rng(seed + 1).normal(size=shape).astype(images.dtype)
                file["cotangent"] = self.cotangent

    def infer(self) -> np.ndarray:
        return np.asarray(self.model(self.images, training=False))

    def train(self) -> dict[str, np.ndarray]:
        """Loss, gradients and moving statistics of one step, by the names under which the probe writes them. Changes the model."""
        images = tf.convert_to_tensor(self.images)
        with tf.GradientTape() as tape:
            tape.watch(images)
            output = self.model(images, training=True)
            if self.labels is not None:
                loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(self.labels, output))
            else:
                loss = tf.reduce_sum(output * self.cotangent)
        trained = self.model.trainable_variables
        gradients = tape.gradient(loss, [images, *(variable.value for variable in trained)])
        result = {"output": np.asarray(output), "loss": np.asarray(loss)}
        if gradients[0] is not None:
            result["input_gradient"] = np.asarray(gradients[0])
        for variable, gradient in zip(trained, gradients[1:]):
            result["gradients/" + self.paths[id(variable)]] = np.asarray(gradient)
        for variable in self.model.variables:
            if variable.name in ("moving_mean", "moving_variance"):
                result["moving/" + self.paths[id(variable)]] = np.asarray(variable.value)
        return result


def probe(folders, *flags: str) -> tuple[dict[pathlib.Path, dict[str, np.ndarray]], str]:
    """Runs our program over the folders: what it wrote for each of them, and what it said on stderr."""
    for folder in folders:
        (folder / "outputs.h5").unlink(missing_ok=True)
    command = [os.environ["LOCKSTEP_MODEL_PROBE"], *flags, *map(str, folders)]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=600)
    assert run.returncode in (0, 1), f"the probe ended with {run.returncode}: {run.stderr}"
    results = {}
    for folder in folders:
        results[folder] = {}
        if (folder / "outputs.h5").exists():
            with h5py.File(folder / "outputs.h5") as file:
                results[folder] = arrays_of(file)
    return results, run.stderr


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference, over the largest magnitude (or 0.001: some gradients are 0 but for rounding, as that of a bias before
    batch normalisation)."""
    assert ours.shape == theirs.shape, f"shape {ours.shape}, not {theirs.shape}"
    if ours.size == 0:
        return 0.0
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-3))
