"""The trained archive: Keras loads it without a warning, finds weights, iterations and slots in it, and continues training to where it
would have come by itself; and an archive that Keras trained is continued by us."""
import json
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
import json_probe

optimizers = keras.optimizers
MAKERS = {
    "sgd": lambda: optimizers.SGD(0.05),
    "momentum": lambda: optimizers.SGD(0.05, momentum=0.9, nesterov=True),
    "rmsprop": lambda: optimizers.RMSprop(centered=True, momentum=0.9, epsilon=1e-3),
    "adam": lambda: optimizers.Adam(0.01),
    "amsgrad_ema": lambda: optimizers.Adam(0.01, amsgrad=True, use_ema=True, gradient_accumulation_steps=2),
    "adamw_schedule": lambda: optimizers.AdamW(optimizers.schedules.CosineDecay(0.05, 12)),
    "nadam": lambda: optimizers.Nadam(0.01),
}


def build(optimizer):
    """A nested model with a frozen layer, whose kernel no optimizer sees."""
    keras.utils.set_random_seed(4)
    inner = keras.Sequential([keras.Input((5,)), keras.layers.Dense(4, activation="relu"), keras.layers.BatchNormalization()])
    inputs = keras.Input((6,))
    frozen = keras.layers.Dense(5, trainable=False, name="frozen")
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inner(frozen(inputs))))
    if optimizer is not None:
        model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    for variable in model.variables:
        value = np.random.default_rng(len(variable.path)).normal(0, 1, variable.shape)
        variable.assign(np.abs(value) if variable.name == "moving_variance" else value)
    return model


def gradients_for(model, steps, seed):
    random = np.random.default_rng(seed)
    return [[random.normal(0, 1, variable.shape).astype("float32") for variable in model.trainable_variables] for _ in range(steps)]


def apply_in_keras(model, gradients):
    for step in gradients:
        model.optimizer.apply([keras.ops.convert_to_tensor(g) for g in step], model.trainable_variables)


def paths_of(model, archive):
    """The HDF5 path of each trainable variable, found by its value."""
    found = {}
    with zipfile.ZipFile(archive) as zipped, zipped.open("model.weights.h5") as raw, h5py.File(raw) as file:
        file.visititems(lambda name, node: found.update({node[()].tobytes(): name}) if isinstance(node, h5py.Dataset) else None)
    return [found[np.asarray(variable.value).tobytes()] for variable in model.trainable_variables]


def train_here(source, target, model, gradients, **overrides):
    request = {"source": str(source), "target": str(target), "trainable": paths_of(model, source),
               "gradients": [[g.ravel().tolist() for g in step] for step in gradients], **overrides}
    assert json_probe.run("archive_probe", request)["error"] == ""


def load(path):
    """Keras only warns, and skips, where the optimizer's variables do not fit."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return keras.models.load_model(path)


def assert_close(model, reference):
    for mine, theirs in zip(model.variables, reference.variables):
        assert np.allclose(mine, theirs, rtol=0, atol=1e-6 * max(1, np.abs(theirs).max())), mine.path
    ours, theirs = model.optimizer.variables, reference.optimizer.variables
    assert [tuple(v.shape) for v in ours] == [tuple(v.shape) for v in theirs]
    for mine, other in zip(ours, theirs):
        assert np.allclose(mine, other, rtol=1e-5, atol=1e-6 * max(1e-3, np.abs(other).max())), other.path


@pytest.mark.parametrize("name", MAKERS)
def test_keras_continues_what_was_trained_here(name, tmp_path):
    reference = build(MAKERS[name]())
    reference.save(tmp_path / "submitted.keras")
    first, second = gradients_for(reference, 5, 1), gradients_for(reference, 4, 2)
    train_here(tmp_path / "submitted.keras", tmp_path / "trained.keras", reference, first)
    apply_in_keras(reference, first)
    model = load(tmp_path / "trained.keras")
    assert int(model.optimizer.iterations) == int(reference.optimizer.iterations) and int(model.optimizer.variables[0]) == 5
    assert_close(model, reference)
    apply_in_keras(reference, second)
    apply_in_keras(model, second)
    assert_close(model, reference)
    x, y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.arange(8) % 3
    model.fit(x, y, epochs=1, verbose=0)
    assert np.isfinite(model.evaluate(x, y, verbose=0)).all()


@pytest.mark.parametrize("name", MAKERS)
def test_what_keras_trained_is_continued_here(name, tmp_path):
    reference = build(MAKERS[name]())
    first, second = gradients_for(reference, 5, 3), gradients_for(reference, 4, 4)
    apply_in_keras(reference, first)
    reference.save(tmp_path / "half.keras")
    train_here(tmp_path / "half.keras", tmp_path / "half.keras", reference, second)  # in place
    apply_in_keras(reference, second)
    assert_close(load(tmp_path / "half.keras"), reference)


def test_what_the_job_overrides_is_in_the_archive(tmp_path):
    """A model that was never compiled, and one whose optimizer the job replaces: Keras continues with what trained."""
    for before in (None, optimizers.Adam(0.5)):
        model = build(before)
        model.save(tmp_path / "submitted.keras")
        gradients = gradients_for(model, 3, 5)
        optimizer = json.dumps({"module": "keras.optimizers", "class_name": "SGD", "config": {"momentum": 0.9}, "registered_name": None})
        train_here(tmp_path / "submitted.keras", tmp_path / "trained.keras", model, gradients, learning_rate=0.25, metrics=["acc"],
                   optimizer=optimizer, loss="crossentropy")
        reference = build(optimizers.SGD(0.25, momentum=0.9))
        apply_in_keras(reference, gradients)
        loaded = load(tmp_path / "trained.keras")
        assert isinstance(loaded.optimizer, optimizers.SGD) and loaded.optimizer.momentum == 0.9
        assert_close(loaded, reference)
        x, y = np.random.default_rng(0).normal(size=(8, 6)).astype("float32"), np.arange(8) % 3
        assert set(loaded.evaluate(x, y, verbose=0, return_dict=True)) == {"loss", "acc"}


def test_the_same_state_makes_the_same_file(tmp_path):
    model = build(MAKERS["adam"]())
    model.save(tmp_path / "submitted.keras")
    for target in ("a.keras", "b.keras"):
        train_here(tmp_path / "submitted.keras", tmp_path / target, model, gradients_for(model, 2, 6))
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.keras", "b.keras", "submitted.keras"]
