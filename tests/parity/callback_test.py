"""Early stopping, reduction on a plateau and the best checkpoint on random sequences, against Keras's own callbacks."""
import math
import random

import keras
import numpy as np
import json_probe

CASES = 200
# Where Keras looks for a metric's direction.
ACCURACY = keras.src.trainers.compile_utils.MetricsList([keras.metrics.BinaryAccuracy(name="accuracy")])


def make_case(source):
    """Figures in steps of min_delta's size, so that ties and near-ties are frequent; some are not a number."""
    delta = source.choice([0.0, 0.01, -0.05])
    values = [source.choice([None] + [round(source.uniform(0, 1), 2)] * 25) for _ in range(source.randint(3, 30))]
    return {
        "mode": source.choice(["auto", "min", "max"]), "min_delta": delta, "values": values, "patience": source.randint(0, 5),
        "baseline": source.choice([None, 0.5]), "restore_best": source.random() < 0.5, "start_from_epoch": source.choice([0, 0, 3]),
        "factor": source.choice([0.1, 0.5]), "plateau_patience": source.randint(0, 4), "cooldown": source.choice([0, 0, 2]),
        "min_learning_rate": source.choice([0.0, 0.004]), "learning_rate": 0.1,
    }


class Recorder(keras.Model):
    """The least of a model that the callbacks see."""

    def __init__(self, case):
        super().__init__()
        self.epoch, self.saved = 0, []
        self.stop_training = False
        self.optimizer = keras.optimizers.SGD(case["learning_rate"])
        self.kept = -1

    @property
    def metrics(self):
        return [ACCURACY]

    def get_weights(self):
        self.kept = self.epoch
        return [np.zeros(1)]

    def save(self, *_, **__):
        self.saved.append(self.epoch)


def run_keras(case, tmp_path):
    model = Recorder(case)
    watch = {"monitor": "val_accuracy", "mode": case["mode"]}
    stop = keras.callbacks.EarlyStopping(**watch, min_delta=case["min_delta"], patience=case["patience"], baseline=case["baseline"],
                                         restore_best_weights=case["restore_best"], start_from_epoch=case["start_from_epoch"])
    plateau = keras.callbacks.ReduceLROnPlateau(**watch, min_delta=case["min_delta"], factor=case["factor"], cooldown=case["cooldown"],
                                                patience=case["plateau_patience"], min_lr=case["min_learning_rate"])
    best = keras.callbacks.ModelCheckpoint(str(tmp_path / "best.keras"), **watch, save_best_only=True)
    callbacks = [best, plateau, stop]
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin()
    result = {"stopped": -1, "rates": []}
    for epoch, value in enumerate(case["values"]):
        logs = {"loss": 1.0, "val_accuracy": math.nan if value is None else value}
        model.epoch = epoch
        best.on_epoch_begin(epoch)
        for callback in callbacks:
            callback.on_epoch_end(epoch, logs)
        result["rates"].append(float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)))
        if model.stop_training and result["stopped"] == -1:
            result["stopped"] = epoch
    return result | {"best": model.saved, "kept": model.kept, "best_epoch": stop.best_epoch}


def test_decisions_on_random_sequences(tmp_path):
    seed = 20
    print("seed", seed)
    source = random.Random(seed)
    cases = [make_case(source) for _ in range(CASES)]
    ours = json_probe.run("callback_probe", {"cases": cases})["cases"]
    theirs = [run_keras(case, tmp_path) for case in cases]
    for case, mine, reference in zip(cases, ours, theirs):
        for key in ("stopped", "best", "kept", "best_epoch"):
            assert mine[key] == reference[key], (key, case, mine, reference)
        assert np.allclose(mine["rates"], reference["rates"], rtol=1e-7, atol=0), (case, mine, reference)
    # The sequences exercise what they are for.
    assert sum(reference["stopped"] >= 0 for reference in theirs) > CASES / 4
    assert sum(reference["rates"][-1] < 0.1 for reference in theirs) > CASES / 4
    assert sum(len(reference["best"]) > 1 for reference in theirs) > CASES / 4
