"""The peer: Keras fit over tf.data, with MirroredStrategy on two logical CPUs. Prints one line of JSON."""
import argparse
import json
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402


class StepTimes(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.monotonic())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--warmup", type=int, required=True)
    parser.add_argument("--replicas", type=int, choices=[1, 2], default=2)
    arguments = parser.parse_args()
    if arguments.replicas == 2:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    else:
        strategy = tf.distribute.get_strategy()
    with strategy.scope():
        model = keras.models.load_model(arguments.model)
    data = keras.utils.image_dataset_from_directory(arguments.train, image_size=(arguments.size, arguments.size),
                                                    batch_size=arguments.batch, seed=1, verbose=False)
    data = data.map(lambda x, y: (x / 255.0, y), num_parallel_calls=tf.data.AUTOTUNE).repeat().prefetch(tf.data.AUTOTUNE)
    times = StepTimes()
    # One line of text an epoch at most: its progress bar is not what is measured.
    model.fit(data, steps_per_epoch=arguments.steps, epochs=1, callbacks=[times], verbose=0)
    counted = times.times[arguments.warmup - 1:]
    steps = [after - before for before, after in zip(counted, counted[1:])]
    print(json.dumps({"images_per_second": arguments.batch * len(steps) / sum(steps),
                      "median_step_seconds": statistics.median(steps), "steps": len(steps)}))


if __name__ == "__main__":
    main()
