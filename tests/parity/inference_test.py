"""Inference of whole architectures with random state, in float32: the largest difference of logits is under 1e-4 of their spread."""
import keras
import numpy as np
import pytest
import architectures
import reference

LIMIT = 1e-4


def images_for(name: str, count: int = 4) -> np.ndarray:
    """Smooth and unlike each other, so that logits differ."""
    random = np.random.default_rng(5)
    side = architectures.pixels(name)
    y, x = np.mgrid[0:side, 0:side, None][:2] / side
    waves = [np.sin(2 * np.pi * (random.uniform(0.5, 4, 3) * x + random.uniform(0.5, 4, 3) * y) + random.uniform(0, 6, 3)) for _ in range(count)]
    images = np.stack(waves) + random.normal(0, 0.3, (count, side, side, 3))
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
