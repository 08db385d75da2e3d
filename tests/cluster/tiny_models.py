"""Writes the models that the cluster tests train, and some that must be refused, with Keras itself.

    tiny_models.py FOLDER

tiny.keras is small and has what makes bits differ: batch normalization, dropout, momentum, and an odd number of channels. Nothing
in it was trained.
"""

import os
import shutil
import sys
import zipfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import h5py  # noqa: E402
import keras  # noqa: E402
from keras import layers  # noqa: E402

SIZE = 24
CLASSES = 4


def save(model, path, **compile_options):
    options = {
        "optimizer": keras.optimizers.SGD(0.05, momentum=0.9),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
    }
    model.compile(**{**options, **compile_options})
    model.save(path)


def tiny(units=CLASSES, activation="softmax"):
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = image
    for filters in (7, 12):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(image, layers.Dense(units, activation=activation)(x), name="tiny")


def wide():
    """Activations of some 3.5 MB a sample, and few weights."""
    image = keras.Input((SIZE, SIZE, 3), name="image")
    x = image
    for _ in range(8):
        x = layers.Conv2D(64, 3, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(x), name="wide")


def with_unknown_layer():
    image = keras.Input((SIZE, SIZE, 3))
    x = layers.Reshape((SIZE, SIZE * 3))(image)
    x = layers.LSTM(4, name="the_odd_one")(x)
    return keras.Model(image, layers.Dense(CLASSES, activation="softmax")(x))


def with_wrong_shape(source, path):
    """`source` with one more row in its last kernel than its configuration says."""
    folder = path + ".parts"
    with zipfile.ZipFile(source) as archive:
        archive.extractall(folder)
    with h5py.File(os.path.join(folder, "model.weights.h5"), "r+") as weights:
        kernel = weights["layers/dense/vars/0"]
        shape, values = kernel.shape, kernel[()]
        del weights["layers/dense/vars/0"]
        weights["layers/dense/vars"].create_dataset("0", data=values.repeat(2, axis=0)[: shape[0] + 1])
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(os.listdir(folder)):
            archive.write(os.path.join(folder, name), name)
    shutil.rmtree(folder)


def cut(source, path):
    with open(source, "rb") as whole, open(path, "wb") as half:
        data = whole.read()
        half.write(data[: len(data) // 2])


def spoil(source, path):
    """`source` with sixteen bytes of its weights turned around."""
    with open(source, "rb") as whole:
        data = bytearray(whole.read())
    start = data.index(b"model.weights.h5") + 8000
    data[start : start + 16] = bytes(byte ^ 0xFF for byte in data[start : start + 16])
    with open(path, "wb") as file:
        file.write(data)


def main(folder):
    os.makedirs(folder, exist_ok=True)
    at = lambda name: os.path.join(folder, name)  # noqa: E731
    keras.utils.set_random_seed(5)
    save(tiny(), at("tiny.keras"))
    save(tiny(), at("adam.keras"), optimizer="adam")
    save(tiny(activation=None), at("logits.keras"), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    save(tiny(units=CLASSES + 3), at("too_many_units.keras"))
    save(tiny(units=CLASSES - 1), at("too_few_units.keras"))
    save(with_unknown_layer(), at("unknown_layer.keras"))
    save(wide(), at("wide.keras"))
    with_wrong_shape(at("tiny.keras"), at("wrong_shape.keras"))
    spoil(at("tiny.keras"), at("spoiled.keras"))
    cut(at("tiny.keras"), at("truncated.keras"))


if __name__ == "__main__":
    main(sys.argv[1])
