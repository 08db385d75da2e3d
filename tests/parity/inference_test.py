"""Inference of whole architectures with random state, in float32: the largest difference of logits is under 1e-4 of their spread."""
import keras
import numpy as np
import pytest
import architectures
import reference

LIMIT = 1e-4


def images_for(name: str, count: int = 8) -> np.ndarray:
    """Smooth, of different colours and contrasts, so that logits differ."""
    random = np.random.default_rng(5)
    side = architectures.pixels(name)
    y, x = np.mgrid[0:side, 0:side][..., None] / side
    images = []
    for _ in range(count):
        wave = np.sin(2 * np.pi * (random.uniform(0.5, 4, 3) * x + random.uniform(0.5, 4, 3) * y) + random.uniform(0, 6, 3))
        noise = random.normal(0, random.uniform(0, 0.4), (side, side, 3))
        images.append(random.uniform(-0.5, 0.5, 3) + random.uniform(0.1, 0.7) * wave + noise)
    images = np.stack(images)
    return ((images + 1) * 127.5 if architectures.takes_bytes(name) else images).astype("float32")


def logits_of(model: keras.Model) -> keras.Model:
    """The same model without its last activation."""
    model.layers[-1].activation = keras.activations.linear
    return model


def deviation(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference over the spread of the logits over the inputs: the least of the classes' standard deviations would let one
    dull class decide, so it is their root mean square."""
    spread = np.sqrt(np.mean(theirs.std(axis=0) ** 2))
    assert spread > 1e-3, "all pictures give the same logits: the comparison is empty"
    return float(np.abs(ours - theirs).max() / spread)


@pytest.fixture(params=architectures.ALL, scope="module")
def compared(request, tmp_path_factory):
    keras.backend.clear_session()
    name = request.param
    case = reference.Case(tmp_path_factory.mktemp(name), architectures.build(name), images_for(name))
    results, errors = reference.probe([case.folder])
    arrays = results[case.folder]
    assert "logits" in arrays, errors
    return name, case, arrays


def test_logits(compared):
    name, case, ours = compared
    theirs = np.asarray(logits_of(case.model)(case.images, training=False))
    figure = deviation(ours["logits"], theirs)
    print(f"{name}: {figure:.2e} of the spread")
    assert figure < LIMIT


class ShiftedConv2D(keras.layers.Conv2D):
    """`same` padding on the wrong side: the odd row and column before the image, where Keras puts them after it."""

    def call(self, inputs):
        total = [max((-(-size // step) - 1) * step + kernel - size, 0)
                 for size, step, kernel in zip(inputs.shape[1:3], self.strides, self.kernel_size)]
        padding = [[0, 0], *([(t + 1) // 2, t // 2] for t in total), [0, 0]]
        return keras.ops.conv(keras.ops.pad(inputs, padding), self.kernel, strides=list(self.strides), padding="valid")


def test_shifted_same_padding_fails(tmp_path):
    keras.backend.clear_session()
    name = "MobileNetV3Small"
    case = reference.Case(tmp_path, architectures.build(name), images_for(name))
    results, errors = reference.probe([case.folder])
    first = next(layer for layer in case.model.layers if isinstance(layer, keras.layers.Conv2D))
    assert first.padding == "same" and first.strides == (2, 2) and not first.use_bias

    def clone(layer):
        kind = ShiftedConv2D if layer is first else type(layer)
        return kind.from_config(layer.get_config())

    shifted = keras.models.clone_model(logits_of(case.model), clone_function=clone)
    shifted.set_weights(case.model.get_weights())
    ours = results[case.folder]["logits"]
    assert deviation(ours, np.asarray(case.model(case.images, training=False))) < LIMIT, errors
    assert deviation(ours, np.asarray(shifted(case.images, training=False))) > 10 * LIMIT
