"""Writes an untrained keras.applications model, compiled, as a .keras file."""
import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", required=True, help="a name in keras.applications")
    parser.add_argument("--size", type=int, required=True, help="height and width of the input, in pixels")
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    build = getattr(keras.applications, arguments.architecture)
    model = build(weights=None, input_shape=(arguments.size, arguments.size, 3), classes=arguments.classes)
    model.compile(optimizer=keras.optimizers.SGD(0.01, momentum=0.9), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    model.save(arguments.out)


if __name__ == "__main__":
    main()
