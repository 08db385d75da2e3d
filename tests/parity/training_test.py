"""Whole training runs of `lockstep fit` beside Keras on the very same batches, and what Keras makes of the file that comes back.

    training_test.py BIN ARCHITECTURE...

Runs in float64: in fp32 Keras differs from itself by 9 to 22 % after five steps when the rows of a batch change places. Pictures are PNGs
of the model's own size, and their scale is a power of two, so that both sides train on the same numbers.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import reference  # noqa: E402
from keras.src.applications import inception_resnet_v2  # noqa: E402

BIN = ""
SCALE = 1 / 256
CLASSES = 3
# Of networks with random state. Keras's initial one, with gamma 1 and beta 0, is chaotic: there, what differs by 1e-14 after one step differs by
# 10 % after ten, in float64 too.
LEARNING_RATE = 1e-2


def inception_resnet_block():
    """One of the blocks of InceptionResNetV2, with the layer that Keras has for it alone."""
    inputs = keras.Input((16, 16, 3))
    block = inception_resnet_v2.inception_resnet_block(keras.layers.Conv2D(24, 3, strides=2)(inputs), 0.17, "block35", 1)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, activation="softmax")(keras.layers.GlobalAveragePooling2D()(block)))


# Dropout draws from streams of our own: only architectures without it can be compared step by step.
ARCHITECTURES = {
    "MobileNetV2": lambda: keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), alpha=0.35, classes=CLASSES),
    "ResNet50V2": lambda: keras.applications.ResNet50V2(weights=None, input_shape=(64, 64, 3), classes=CLASSES),
    "DenseNet121": lambda: keras.applications.DenseNet121(weights=None, input_shape=(64, 64, 3), classes=CLASSES),
    "InceptionResNetV2": lambda: keras.applications.InceptionResNetV2(weights=None, input_shape=(80, 80, 3), classes=CLASSES),
    "InceptionResNetBlock": inception_resnet_block,
    "Xception": lambda: keras.applications.Xception(weights=None, input_shape=(72, 72, 3), classes=CLASSES),
}


def make_pictures(folder, size, each, seed):
    random = np.random.default_rng(seed)
    for label in range(CLASSES):
        (folder / f"class_{label}").mkdir(parents=True)
        for i in range(each):
            coarse = random.integers(0, 256, (6, 6, 3))
            coarse[..., label] //= 3
            picture = tf.cast(tf.image.resize(coarse, size), tf.uint8)
            tf.io.write_file(str(folder / f"class_{label}" / f"{i}.png"), tf.io.encode_png(picture))


def load(folder, paths, dtype):
    images = np.stack([tf.io.decode_png(tf.io.read_file(str(folder / path))).numpy() for path in paths]).astype(dtype) * np.asarray(SCALE, dtype)
    return images, np.array([int(path.split("/")[0].removeprefix("class_")) for path in paths])


def fit(folder, *arguments):
    command = [os.path.join(BIN, "lockstep"), "fit", folder / "model.keras", "--train", folder / "train", "--scale", SCALE, "--out",
               folder / "trained.keras", "--step-log", folder / "steps.jsonl", "--summary", folder / "summary.json",
               "--log-samples", *arguments]  # fmt: skip
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=900)
    assert run.returncode == 0, run.stdout + run.stderr
    return [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()], json.loads((folder / "summary.json").read_text())


def flat(variables):
    return np.concatenate([np.asarray(v.value, np.float64).ravel() for v in variables])


def groups(model):
    """What the optimizer moves, and moving statistics, which move so much farther that they would hide it."""
    return flat(model.trainable_variables), flat(model.non_trainable_variables)


class TrainingTest(unittest.TestCase):
    architectures = ()

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)

    def build(self, architecture, policy, optimizer):
        # Both words: Keras takes data and losses in floatx, whatever the layers' policy.
        for configure in (keras.config.set_floatx, keras.config.set_dtype_policy):
            configure(policy)
            self.addCleanup(configure, "float32")
        keras.utils.set_random_seed(5)
        model = ARCHITECTURES[architecture]()
        reference.randomise(model, seed=6)
        model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        model.save(self.folder / "model.keras")
        make_pictures(self.folder / "train", model.input_shape[1:3], 32, seed=1)
        return model

    def check_ten_steps(self, architecture):
        model = self.build(architecture, "float64", keras.optimizers.SGD(LEARNING_RATE, momentum=0.9))
        before = groups(model)
        steps, summary = fit(self.folder, "--batch", 20, "--steps", 10, "--virtual-replicas", 1, "--seed", 3)
        self.assertEqual(len(steps), 10)
        losses = []
        for step in steps:
            images, labels = load(self.folder / "train", step["samples"], np.float64)
            model.reset_metrics()  # else the loss would be a mean over the steps so far
            losses.append(float(model.train_on_batch(images, labels)[0]))
        worst = max(abs(step["loss"] - loss) / abs(loss) for step, loss in zip(steps, losses))
        trained = keras.models.load_model(self.folder / "trained.keras")
        ratios = []
        for start, ours, keras_own in zip(before, groups(trained), groups(model)):
            moved = np.linalg.norm(keras_own - start)
            self.assertGreater(moved, 1e-3)
            ratios.append(np.linalg.norm(ours - keras_own) / moved)
        print(f"{architecture}: 10 steps in float64: loss {losses[0]:.4f} to {losses[-1]:.4f}, relative difference at most {worst:.1e}; "
              f"apart / moved: weights {ratios[0]:.1e}, statistics {ratios[1]:.1e}", flush=True)  # fmt: skip
        self.assertLess(worst, 1e-9)
        self.assertLess(max(ratios), 1e-8)

    def test_ten_steps_on_the_same_batches(self):
        for architecture in self.architectures:
            with self.subTest(architecture):
                with tempfile.TemporaryDirectory() as folder:
                    self.folder = pathlib.Path(folder)
                    self.check_ten_steps(architecture)

    def test_the_file_that_comes_back_predicts_and_trains_in_keras(self):
        model = self.build("MobileNetV2", "float32", keras.optimizers.Adam(1e-3))
        make_pictures(self.folder / "validation", (96, 96), 5, seed=2)
        steps, summary = fit(self.folder, "--validation", self.folder / "validation", "--batch", 12, "--epochs", 2, "--replicas", 2)
        trained = keras.models.load_model(self.folder / "trained.keras")
        self.assertEqual(int(trained.optimizer.iterations.numpy()), len(steps))
        slots = [np.abs(np.asarray(v.value)).max() for v in trained.optimizer.variables if "velocity" in v.path]
        self.assertGreater(min(slots), 0, "Adam's second moments came back")
        paths = sorted(str(p.relative_to(self.folder / "validation")) for p in (self.folder / "validation").glob("*/*.png"))
        images, labels = load(self.folder / "validation", paths, np.float32)
        loss, accuracy = trained.evaluate(images, labels, verbose=0)
        said = summary["validation"]
        print(f"validation: Lockstep said loss {said['loss']:.6f} accuracy {said['accuracy']:.4f}; Keras finds {loss:.6f} {accuracy:.4f}")
        self.assertAlmostEqual(loss / said["loss"], 1, delta=1e-4)
        self.assertAlmostEqual(accuracy, said["accuracy"], delta=1e-6)
        images, labels = load(self.folder / "train", steps[0]["samples"], np.float32)
        history = trained.fit(images, labels, batch_size=12, epochs=2, verbose=0)
        self.assertTrue(np.isfinite(history.history["loss"]).all())
        self.assertEqual(int(trained.optimizer.iterations.numpy()), len(steps) + 2)


def main():
    global BIN
    BIN = sys.argv[1]
    TrainingTest.architectures = sys.argv[2:]
    tf.config.threading.set_intra_op_parallelism_threads(2)
    unittest.main(argv=sys.argv[:1], verbosity=2)


if __name__ == "__main__":
    main()
