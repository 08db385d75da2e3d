"""Writes the demo's network, untrained: a small residual network for pictures of 64 × 64 pixels, compiled with Adam.

An ordinary Keras script: nothing in it knows Lockstep.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it announces them
import keras  # noqa: E402
from keras import layers  # noqa: E402


def convolution(x, filters, kernel=3, strides=1):
    x = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization(momentum=0.9)(x)


def residual_block(x, filters, strides):
    """Two convolutions beside a skip, which a 1 × 1 convolution fits to a new size where there is one."""
    y = layers.ReLU()(convolution(x, filters, strides=strides))
    y = convolution(y, filters)
    if strides != 1 or x.shape[-1] != filters:
        x = convolution(x, filters, kernel=1, strides=strides)
    return layers.ReLU()(layers.Add()([x, y]))


def build(size, classes):
    picture = keras.Input((size, size, 3), name="picture")
    x = layers.Rescaling(1 / 127.5, offset=-1)(picture)
    x = layers.ReLU()(convolution(x, 16, strides=2))
    for filters, strides in [(16, 1), (32, 2), (64, 2)]:
        x = residual_block(x, filters, strides)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.Dropout(0.2)(x)
    return keras.Model(picture, layers.Dense(classes, activation="softmax", name="classes")(x), name="small_residual")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="the .keras file to write")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    model = build(arguments.size, arguments.classes)
    model.compile(optimizer=keras.optimizers.Adam(0.003), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(arguments.out)
    print(f"{arguments.out}: {model.name}, {model.count_params():,} parameters, untrained")


if __name__ == "__main__":
    main()
