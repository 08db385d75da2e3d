"""Makes tests/data/tiny_residual.keras: a residual network small enough to be kept, with what makes bits hard to keep equal
(batch normalisation, dropout, a depthwise convolution, a frozen layer)."""
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras  # noqa: E402
from keras import layers  # noqa: E402


def build():
    picture = keras.Input((24, 24, 3), name="picture")
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(picture)
    x = layers.BatchNormalization(momentum=0.9, name="stem_norm")(x)
    skip = layers.ReLU(name="stem_relu")(x)
    x = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depthwise")(skip)
    x = layers.BatchNormalization(momentum=0.9, name="depthwise_norm")(x)
    x = layers.ReLU(6.0, name="depthwise_relu")(x)
    x = layers.Conv2D(8, 1, kernel_regularizer=keras.regularizers.L2(1e-4), name="project")(x)
    x = layers.Add(name="residual")([skip, x])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    frozen = layers.Dense(8, name="frozen")
    x = frozen(x)
    frozen.trainable = False
    x = layers.Dropout(0.25, name="dropout")(x)
    return keras.Model(picture, layers.Dense(3, activation="softmax", name="classes")(x), name="tiny_residual")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "tiny_residual.keras"))
    arguments = parser.parse_args()
    keras.utils.set_random_seed(7)
    model = build()
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(arguments.out)


if __name__ == "__main__":
    main()
