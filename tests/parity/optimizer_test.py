"""Optimizers fed recorded gradients for 20 steps, against Keras: parameters after every step, learning rates, and all that Keras would
save, within 1e-6 of each array's largest magnitude in float32, and 1e-12 in float64."""
import keras
import numpy as np
import pytest
import json_probe

STEPS = 20
LIMITS = {"float32": 1e-6, "float64": 1e-12}
SHAPES = [(3, 3, 2, 4), (7,)]

schedules = keras.optimizers.schedules
optimizers = keras.optimizers

RULES = {
    "sgd": lambda **options: optimizers.SGD(**{"learning_rate": 0.05, **options}),
    "momentum": lambda **options: optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.9, **options}),
    "nesterov": lambda **options: optimizers.SGD(**{"learning_rate": 0.05, "momentum": 0.9, "nesterov": True, **options}),
    "rmsprop": lambda **options: optimizers.RMSprop(**{"rho": 0.85, **options}),
    "rmsprop_momentum": lambda **options: optimizers.RMSprop(momentum=0.8, **options),
    "rmsprop_centered": lambda **options: optimizers.RMSprop(centered=True, epsilon=1e-3, **options),
    "rmsprop_centered_momentum": lambda **options: optimizers.RMSprop(centered=True, epsilon=1e-3, momentum=0.8, **options),
    "adam": lambda **options: optimizers.Adam(**options),
    "adam_betas": lambda **options: optimizers.Adam(beta_1=0.8, beta_2=0.95, epsilon=1e-4, **options),
    "amsgrad": lambda **options: optimizers.Adam(amsgrad=True, beta_2=0.8, **options),
    "adamw": lambda **options: optimizers.AdamW(**{"weight_decay": 0.02, **options}),
    "nadam": lambda **options: optimizers.Nadam(**options),
    "adamax": lambda **options: optimizers.Adamax(**options),
    "adagrad": lambda **options: optimizers.Adagrad(initial_accumulator_value=0.2, **options),
    "adadelta": lambda **options: optimizers.Adadelta(**{"learning_rate": 0.5, **options}),
    "lion": lambda **options: optimizers.Lion(**options),
}
OPTIONS = {
    "plain": {},
    "decay": {"weight_decay": 0.01},
    "clipnorm": {"clipnorm": 1.5},
    "clipvalue": {"clipvalue": 0.4},
    "global_clipnorm": {"global_clipnorm": 3.0},
    "global_clipnorm_idle": {"global_clipnorm": 1e4},
    "ema": {"use_ema": True, "ema_momentum": 0.9},
    "ema_overwrite": {"use_ema": True, "ema_momentum": 0.8, "ema_overwrite_frequency": 4},
    "loss_scale": {"loss_scale_factor": 8.0},
    "accumulate": {"gradient_accumulation_steps": 3},
    "everything": {"weight_decay": 0.01, "clipnorm": 1.0, "use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 3,
                   "loss_scale_factor": 4.0, "gradient_accumulation_steps": 2},
}
SCHEDULES = {
    "exponential": lambda: schedules.ExponentialDecay(0.1, 7, 0.6),
    "exponential_stairs": lambda: schedules.ExponentialDecay(0.1, 5, 0.5, staircase=True),
    "piecewise": lambda: schedules.PiecewiseConstantDecay([4, 9], [0.1, 0.03, 0.01]),
    "polynomial": lambda: schedules.PolynomialDecay(0.1, 12, 0.01, power=2.0),
    "polynomial_cycle": lambda: schedules.PolynomialDecay(0.1, 6, 0.01, power=0.5, cycle=True),
    "inverse": lambda: schedules.InverseTimeDecay(0.1, 3, 0.7),
    "inverse_stairs": lambda: schedules.InverseTimeDecay(0.1, 3, 0.7, staircase=True),
    "cosine": lambda: schedules.CosineDecay(0.1, 15, alpha=0.1),
    "cosine_warmup": lambda: schedules.CosineDecay(0.0, 10, alpha=0.05, warmup_target=0.1, warmup_steps=5),
    "restarts": lambda: schedules.CosineDecayRestarts(0.1, 2, t_mul=2.0, m_mul=0.8, alpha=0.1),
    "restarts_even": lambda: schedules.CosineDecayRestarts(0.1, 5, t_mul=1.0, m_mul=0.9),
}


# All options with the first of these; with the others the plain rule, and everything at once.
WITH_ALL_OPTIONS = ["momentum", "rmsprop", "adam", "nadam"]


def build_some():
    """Every rule, every option and every schedule, as new optimizers."""
    built = {}
    for rule, make in RULES.items():
        options = OPTIONS if rule in WITH_ALL_OPTIONS else ("plain", "everything")
        built |= {f"{rule}-{option}": make(**OPTIONS[option]) for option in options}
    return built | {f"momentum-{name}": optimizers.SGD(make(), momentum=0.9) for name, make in SCHEDULES.items()}


def build_few():
    """Every rule, plain and with everything at once, and schedules."""
    return {name: optimizer for name, optimizer in build_some().items() if name.split("-")[1] in ("plain", "everything", *SCHEDULES)}


def build_all():
    """Every rule with every option, and schedules once more where steps only accumulate."""
    built = {f"{rule}-{option}": make(**options) for rule, make in RULES.items() for option, options in OPTIONS.items()}
    return built | {f"adamw-{name}": optimizers.AdamW(make(), gradient_accumulation_steps=2) for name, make in SCHEDULES.items()}


def flat(arrays):
    return [np.asarray(array, dtype=np.float64).ravel() for array in arrays]


def run_keras(optimizer, variables, gradients, floatx):
    variables = [keras.Variable(value, dtype=floatx, name=f"v{i}") for i, value in enumerate(variables)]
    optimizer.build(variables)
    rates, parameters = [], []
    for step in gradients:
        rates.append(float(keras.ops.convert_to_numpy(optimizer.learning_rate)))
        optimizer.apply([keras.ops.convert_to_tensor(g, dtype=floatx) for g in step])
        parameters.append(flat(variables))
    saved = flat(optimizer.variables)
    optimizer.finalize_variable_values(variables)
    return {"rates": rates, "parameters": parameters, "saved": saved, "finished": flat(variables)}


def deviation(ours, theirs):
    ours, theirs = np.asarray(ours, dtype=np.float64).ravel(), np.asarray(theirs, dtype=np.float64).ravel()
    assert ours.shape == theirs.shape, f"{ours.shape} values, not {theirs.shape}"
    return np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-12)


def compare(floatx, build):
    """For each optimizer the largest deviation, and by how much its parameters moved."""
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    random = np.random.default_rng(3)
    variables = [random.normal(0, 1, shape).astype(floatx) for shape in SHAPES]
    gradients = [[random.normal(0, 10.0 ** random.uniform(-2, 0.3), shape).astype(floatx) for shape in SHAPES] for _ in range(STEPS)]
    built = build()
    cases = [{"optimizer": keras.optimizers.serialize(optimizer), "float64": floatx == "float64"} for optimizer in built.values()]
    request = {"variables": [v.ravel().tolist() for v in variables], "cases": cases,
               "gradients": [[g.ravel().tolist() for g in step] for step in gradients]}
    ours = json_probe.run("optimizer_probe", request)["cases"]
    figures = {}
    for (name, optimizer), mine in zip(built.items(), ours):
        reference = run_keras(optimizer, variables, gradients, floatx)
        assert len(mine["saved"]) == len(reference["saved"]), f"{name}: {len(mine['saved'])} saved, not {len(reference['saved'])}"
        deviations = [deviation(mine["rates"], reference["rates"])]
        for kind in ("saved", "finished"):
            deviations += [deviation(a, b) for a, b in zip(mine[kind], reference[kind])]
        for a, b in zip(mine["parameters"], reference["parameters"]):
            deviations += [deviation(x, y) for x, y in zip(a, b)]
        moved = min(deviation(last, first) for last, first in zip(reference["parameters"][-1], flat(variables)))
        figures[name] = (max(deviations), moved)
    keras.config.set_floatx(before)
    return figures


def check(floatx, build):
    figures = compare(floatx, build)
    worst = max(figures, key=lambda name: figures[name][0])
    print(f"{floatx}: {len(figures)} optimizers, worst {figures[worst][0]:.1e} ({worst})")
    wrong = {name: f"{far:.1e}" for name, (far, _) in figures.items() if not far <= LIMITS[floatx]}
    assert not wrong, wrong
    # The comparison is not empty: parameters move by far more than the limit.
    idle = {name: f"{moved:.1e}" for name, (_, moved) in figures.items() if not moved > 100 * LIMITS[floatx]}
    assert not idle, idle


@pytest.mark.parametrize("floatx, build", [("float32", build_some), ("float64", build_few)])
def test_rules_options_and_schedules(floatx, build):
    check(floatx, build)


@pytest.mark.parametrize("floatx", ["float32", "float64"])
def test_every_rule_with_every_option(floatx):
    check(floatx, build_all)
