"""A zoo of small models, one layer and set of options each: inference, and every gradient in training, against Keras in float64."""
import keras
import numpy as np
import pytest
import reference
from keras import layers as L
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

keras.config.set_floatx("float64")  # before the first layer is made
IMAGE = (9, 7, 6)
VECTOR = (10,)


def sequence(*layers):
    def build(x):
        for layer in layers:
            x = layer(x)
        return x

    return build


def branches(merge, *sides):
    return lambda x: merge([side(x) for side in sides])


def shared_layer(x):
    shared = L.Conv2D(6, 3, padding="same", name="shared")
    return L.Add()([shared(x), shared(shared(x))])


def shared_normalization(x):
    shared = L.BatchNormalization(name="shared")
    return L.ReLU()(L.Add()([shared(x), shared(L.Conv2D(6, 1)(x))]))


def nested(trainable=True):
    def build(x):
        inner_input = keras.Input(x.shape[1:])
        y = L.BatchNormalization()(L.Conv2D(4, 3, strides=2, padding="same")(inner_input))
        inner = keras.Model(inner_input, L.ReLU(6.0)(y), name="inner")
        inner.trainable = trainable
        outer = keras.Sequential([keras.Input(x.shape[1:]), inner, L.Conv2D(5, 2), L.Flatten()], name="outer")
        return L.Dense(3)(outer(x))

    return build


def nested_twice(x):
    inner = keras.Sequential([L.Conv2D(6, 3, padding="same"), L.BatchNormalization()], name="inner")
    return L.Concatenate()([inner(x), inner(inner(x))])


def frozen(layer):
    layer.trainable = False
    return layer


def hard_swish(x):
    return x * (keras.activations.relu(x + 3.0, max_value=6.0) * (1.0 / 6.0))


def arithmetic(x):
    y = L.Conv2D(6, 1)(x)
    return 1.5 - x / (2.0 + y * y) + keras.ops.maximum(x, y) - keras.ops.minimum(0.1, x)


def squeeze_excite(x):
    s = L.GlobalAveragePooling2D(keepdims=True)(x)
    s = L.Conv2D(6, 1, activation="hard_sigmoid")(L.Conv2D(3, 1, activation="relu")(s))
    return L.Multiply()([x, s])


CASES = {}
# Keras holds a constant of these layers, or computes them, in single precision or to ten digits, whatever the model's.
ROUNDED = {"dense_on_image", "upsampling_bilinear", "rescaling", "normalization_given", "activation_leaky_relu", "activation_gelu", "relu_slope",
           "leaky_relu", "layer_as_activation", "activation_hard_sigmoid", "squeeze_excite", "gelu_tanh"}


def tolerance(name):
    return 1e-6 if name in ROUNDED else 1e-9


def case(name, build, shape=IMAGE):
    assert name not in CASES, name
    CASES[name] = (build, shape)


# Convolutions.
for strides, padding, kernel in [(1, "valid", 3), (1, "same", 3), (2, "same", 3), (2, "valid", 3), (2, "same", 2), (3, "same", (5, 2)),
                                 (2, "same", 1), ((2, 1), "same", (3, 5)), (1, "same", (1, 7)), (1, "same", 4)]:
    key = f"{kernel}_{strides}_{padding}".replace(" ", "")
    case(f"conv_{key}", sequence(L.Conv2D(5, kernel, strides=strides, padding=padding)))
    case(f"depthwise_{key}", sequence(L.DepthwiseConv2D(kernel, strides=strides if isinstance(strides, int) else 1, padding=padding)))
    if isinstance(strides, int):
        case(f"separable_{key}", sequence(L.SeparableConv2D(5, kernel, strides=strides, padding=padding)))
    case(f"transpose_{key}", sequence(L.Conv2DTranspose(5, kernel, strides=strides, padding=padding)))
case("conv_no_bias_relu", sequence(L.Conv2D(4, 3, use_bias=False, activation="relu")))
case("conv_groups", sequence(L.Conv2D(8, 3, groups=2, padding="same")))
case("conv_groups_strided", sequence(L.Conv2D(9, 3, groups=3, strides=2, padding="same")))
case("conv_dilated", sequence(L.Conv2D(4, 3, dilation_rate=2)))
case("conv_dilated_same", sequence(L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same")))
case("conv_groups_dilated", sequence(L.Conv2D(4, 3, groups=2, dilation_rate=2, padding="same")))
case("depthwise_multiplier", sequence(L.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu6")))
case("depthwise_dilated", sequence(L.DepthwiseConv2D(3, dilation_rate=2, padding="same", use_bias=False)))
case("depthwise_17_channels", sequence(L.Conv2D(17, 1), L.DepthwiseConv2D(3, strides=2, padding="same")))
case("depthwise_70_channels", sequence(L.Conv2D(70, 1), L.DepthwiseConv2D(5, padding="same")))
case("depthwise_large_kernel", sequence(L.DepthwiseConv2D(7, padding="same")))
case("depthwise_strided_wide", sequence(L.DepthwiseConv2D(5, strides=3, padding="valid")))
case("separable_multiplier", sequence(L.SeparableConv2D(4, 3, depth_multiplier=3, padding="same", dilation_rate=2)))
case("separable_no_bias", sequence(L.SeparableConv2D(4, 3, use_bias=False, activation="relu")))
case("transpose_output_padding", sequence(L.Conv2DTranspose(4, 3, strides=2, padding="valid", output_padding=1)))
case("transpose_output_padding_same", sequence(L.Conv2DTranspose(4, 3, strides=2, padding="same", output_padding=1)))
case("transpose_no_bias_relu", sequence(L.Conv2DTranspose(4, 3, use_bias=False, activation="relu")))
case("zero_padding_conv", sequence(L.ZeroPadding2D(1), L.Conv2D(4, 3, strides=2)))
case("zero_padding_uneven_conv", sequence(L.ZeroPadding2D(((0, 1), (0, 1))), L.Conv2D(4, 3, strides=2)))
case("zero_padding_depthwise", sequence(L.ZeroPadding2D(((0, 1), (1, 0))), L.DepthwiseConv2D(3, strides=2)))
case("zero_padding_transpose", sequence(L.ZeroPadding2D(1), L.Conv2DTranspose(4, 3, strides=2)))
case("zero_padding_twice", sequence(L.ZeroPadding2D(1), L.ZeroPadding2D((2, 1)), L.Conv2D(4, 3)))
case("zero_padding_pool", sequence(L.ZeroPadding2D(1), L.MaxPooling2D(3, strides=2)))

# Dense, shapes.
case("dense", sequence(L.Dense(4)), VECTOR)
case("dense_softmax", sequence(L.Dense(4, activation="softmax")), VECTOR)
case("dense_sigmoid_no_bias", sequence(L.Dense(4, use_bias=False, activation="sigmoid")), VECTOR)
case("dense_on_image", sequence(L.Dense(4, activation="gelu")))
case("flatten", sequence(L.Flatten(), L.Dense(3)))
case("reshape", sequence(L.Reshape((7, -1)), L.Dense(3)))
case("reshape_back", sequence(L.GlobalAveragePooling2D(), L.Reshape((1, 1, 6)), L.Conv2D(4, 1)))
case("permute", sequence(L.Permute((3, 1, 2)), L.Dense(3)))
case("repeat_vector", sequence(L.RepeatVector(3), L.Dense(2)), VECTOR)
case("cropping", sequence(L.Cropping2D(((1, 2), (0, 3))), L.Conv2D(3, 2)))
case("zero_padding", sequence(L.ZeroPadding2D(((1, 2), (0, 3)))))
case("upsampling", sequence(L.UpSampling2D((2, 3))))
case("upsampling_bilinear", sequence(L.UpSampling2D(2, interpolation="bilinear")))
case("identity", sequence(L.Identity(), L.Conv2D(3, 1)))

# Pooling.
for size, strides, padding in [(2, None, "valid"), (3, 2, "same"), (3, 1, "same"), ((2, 3), (1, 2), "valid"), (2, 2, "same")]:
    key = f"{size}_{strides}_{padding}".replace(" ", "")
    case(f"max_pool_{key}", sequence(L.MaxPooling2D(size, strides=strides, padding=padding)))
    case(f"average_pool_{key}", sequence(L.AveragePooling2D(size, strides=strides, padding=padding)))
for keep in (False, True):
    case(f"global_average_{keep}", sequence(L.GlobalAveragePooling2D(keepdims=keep)))
    case(f"global_max_{keep}", sequence(L.GlobalMaxPooling2D(keepdims=keep)))
if hasattr(L, "AdaptiveAveragePooling2D"):
    case("adaptive_average", sequence(L.AdaptiveAveragePooling2D((3, 7))))
    case("adaptive_max", sequence(L.AdaptiveMaxPooling2D((3, 7))))

# Normalisation.
case("batch_norm", sequence(L.BatchNormalization()))
case("batch_norm_relu", sequence(L.Conv2D(70, 1), L.BatchNormalization(momentum=0.9, epsilon=1e-5), L.Activation("relu")))
case("batch_norm_relu6", sequence(L.BatchNormalization(), L.ReLU(6.0), L.Conv2D(3, 1)))
case("batch_norm_swish", sequence(L.BatchNormalization(), L.Activation("swish"), L.Conv2D(3, 1)))
case("batch_norm_no_scale", sequence(L.BatchNormalization(scale=False)))
case("batch_norm_no_center", sequence(L.BatchNormalization(center=False), L.ReLU()))
case("batch_norm_bare", sequence(L.BatchNormalization(scale=False, center=False)))
case("batch_norm_axis_1", sequence(L.BatchNormalization(axis=1)))
case("batch_norm_vector", sequence(L.Dense(5), L.BatchNormalization(), L.ReLU()), VECTOR)
case("batch_norm_frozen", sequence(L.Conv2D(5, 1), frozen(L.BatchNormalization()), L.ReLU(), L.Conv2D(2, 1)))
case("conv_frozen", sequence(frozen(L.Conv2D(5, 3)), L.BatchNormalization(), L.Conv2D(2, 1)))
case("batch_norm_used_twice", lambda x: (lambda y: L.Add()([y, L.ReLU()(y)]))(L.BatchNormalization()(x)))
case("layer_norm", sequence(L.LayerNormalization(epsilon=1e-6)))
case("layer_norm_no_scale", sequence(L.LayerNormalization(scale=False)))
case("layer_norm_bare", sequence(L.LayerNormalization(scale=False, center=False)))
case("layer_norm_axes", sequence(L.LayerNormalization(axis=(1, 2))))
case("layer_norm_trailing_axes", sequence(L.LayerNormalization(axis=(2, 3))))
case("group_norm", sequence(L.GroupNormalization(groups=3)))
case("group_norm_one", sequence(L.GroupNormalization(groups=1, scale=False)))
case("group_norm_instance", sequence(L.GroupNormalization(groups=-1, center=False)))
case("unit_norm", sequence(L.UnitNormalization()))
case("unit_norm_axes", sequence(L.UnitNormalization(axis=(1, 3))))
if hasattr(L, "RMSNormalization"):
    case("rms_norm", sequence(L.RMSNormalization()))
case("rescaling", sequence(L.Rescaling(1 / 127.5, offset=-1), L.Conv2D(3, 1)))
case("rescaling_list", sequence(L.Rescaling([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], offset=[0.5, 0, 0, 0, 0, 1]), L.Conv2D(3, 1)))
case("normalization_given", sequence(L.Normalization(mean=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], variance=[1.0, 2, 3, 4, 5, 6]), L.Conv2D(3, 1)))
case("normalization_scalar", sequence(L.Normalization(mean=0.5, variance=4.0, axis=None), L.Conv2D(3, 1)))
case("normalization_inverted", sequence(L.Normalization(mean=[0.1] * 6, variance=[2.0] * 6, invert=True), L.Conv2D(3, 1)))


def adapted(axis):
    layer = L.Normalization(axis=axis)
    layer.adapt(np.random.default_rng(3).normal(1, 2, (5, *IMAGE)))
    return sequence(layer, L.Conv2D(3, 1))


# Activations, as a layer, an option and a node of the graph.
for name in ["linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "swish", "hard_silu", "hard_swish", "sigmoid",
             "hard_sigmoid", "log_sigmoid", "sparse_sigmoid", "tanh", "hard_tanh", "tanh_shrink", "soft_shrink", "hard_shrink", "softplus",
             "softsign", "sparse_plus", "squareplus", "exponential", "mish", "softmax", "log_softmax"]:
    case(f"activation_{name}", sequence(L.Conv2D(6, 1), L.Activation(name)))
case("relu_options", sequence(L.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.3)))
case("relu_slope", sequence(L.ReLU(negative_slope=0.2)))
case("relu_threshold", sequence(L.ReLU(threshold=0.4)))
case("leaky_relu", sequence(L.LeakyReLU(negative_slope=0.15)))
case("prelu", sequence(L.PReLU()))
case("prelu_shared", sequence(L.PReLU(shared_axes=[1, 2])))
case("elu_alpha", sequence(L.ELU(alpha=0.7)))
case("softmax_layer", sequence(L.Softmax(axis=1)))
case("softmax_axes", sequence(L.Softmax(axis=(1, 2))))
case("gelu_tanh", lambda x: keras.activations.gelu(L.Conv2D(4, 1)(x), approximate=True))
case("operation_activations", lambda x: keras.ops.sigmoid(x) + keras.ops.silu(x) * keras.ops.relu6(x) + keras.ops.leaky_relu(x, 0.1))
case("operation_unary", lambda x: keras.ops.exp(-keras.ops.square(x)) + keras.ops.sqrt(keras.ops.abs(x) + 1.0) + keras.ops.tanh(x))
case("operation_mean", lambda x: x - keras.ops.mean(x, axis=(1, 2), keepdims=True))
case("operation_relu_max", hard_swish)
case("operation_arithmetic", arithmetic)
case("layer_as_activation", sequence(L.Conv2D(4, 1, activation=L.LeakyReLU(0.3))))

# Merging.
conv = lambda: sequence(L.Conv2D(6, 3, padding="same"))
for merge in ("Add", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"):
    case(f"merge_{merge}", branches(getattr(L, merge)(), conv(), conv(), conv()))
case("merge_subtract", branches(L.Subtract(), conv(), conv()))
case("merge_add_relu", sequence(branches(L.Add(), conv(), conv()), L.ReLU(), L.Conv2D(2, 1)))
case("merge_add_same", lambda x: L.Add()([x, x]))
case("merge_add_relu_input", sequence(lambda x: L.Add()([x, x]), L.Activation("relu6")))
case("merge_scale", branches(CustomScaleLayer(0.17), conv(), conv()))
case("merge_scale_relu", sequence(branches(CustomScaleLayer(-1.3), conv(), conv()), L.Activation("relu"), L.Conv2D(2, 1)))
case("merge_scale_relu6", sequence(branches(CustomScaleLayer(2), conv(), conv()), L.ReLU(6.0), L.Conv2D(2, 1)))
case("merge_scale_same", lambda x: CustomScaleLayer(0.3)([x, x]))
case("merge_scale_first_is_smaller", lambda x: CustomScaleLayer(0.3)([L.GlobalAveragePooling2D(keepdims=True)(x), L.Conv2D(6, 1)(x)]))
case("merge_scale_second_is_smaller", lambda x: CustomScaleLayer(0.3)([L.Conv2D(6, 1)(x), L.GlobalAveragePooling2D(keepdims=True)(x)]))
case("merge_scale_both_are_smaller", branches(CustomScaleLayer(0.3), L.Conv2D(1, 1), L.GlobalAveragePooling2D(keepdims=True)))
case("merge_concatenate_axis", branches(L.Concatenate(axis=1), conv(), conv()))
case("merge_broadcast", lambda x: L.Add()([L.GlobalAveragePooling2D(keepdims=True)(x), L.Conv2D(6, 1)(x)]))
case("merge_dot", branches(L.Dot(axes=1), sequence(L.Dense(4)), sequence(L.Dense(4))), VECTOR)
case("merge_dot_normalized", branches(L.Dot(axes=-1, normalize=True), sequence(L.Dense(4)), sequence(L.Dense(4))), VECTOR)
case("merge_dot_rank_3", branches(L.Dot(axes=(2, 1)), sequence(L.Reshape((5, 2))), sequence(L.Reshape((2, 5)))), VECTOR)
case("squeeze_excite", squeeze_excite)

# Random layers that draw nothing.
case("dropout_zero", sequence(L.Dropout(0.0), L.Conv2D(2, 1)))

# Graphs.
case("shared_layer", shared_layer)
case("shared_normalization", shared_normalization)
case("nested", nested())
case("nested_frozen", nested(trainable=False))
case("nested_twice", nested_twice)
case("unused_branch_order", lambda x: L.Subtract()([L.Conv2D(3, 1, name="z")(x), L.Conv2D(3, 1, name="a")(x)]))


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """All cases, run by Keras and by us: in training, each layer on its own and fused, and in inference."""
    root = tmp_path_factory.mktemp("zoo")
    CASES["normalization_adapted"] = (adapted(-1), IMAGE)
    CASES["normalization_adapted_axes"] = (adapted((1, 3)), IMAGE)
    made = {}
    for index, (name, (build, shape)) in enumerate(CASES.items()):
        keras.backend.clear_session(free_memory=False)  # collecting garbage takes two thirds of the whole test
        inputs = keras.Input(shape)
        images = np.random.default_rng(index).normal(0.2, 1.5, (3, *shape))
        made[name] = reference.Case(root / name, keras.Model(inputs, build(inputs)), images, seed=index)
    folders = [one.folder for one in made.values()]
    results = {flags: reference.probe(folders, "--float64", *flags) for flags in [(), ("--gradients",), ("--gradients", "--plain")]}
    return made, results


ALL = [*CASES, "normalization_adapted", "normalization_adapted_axes"]


@pytest.mark.parametrize("name", ALL)
def test_inference(zoo, name):
    made, results = zoo
    arrays, errors = results[()]
    ours = arrays[made[name].folder]
    assert "output" in ours, errors
    assert reference.difference(ours["output"], made[name].infer()) < tolerance(name)


@pytest.mark.parametrize("name", ALL)
def test_training(zoo, name):
    made, results = zoo
    theirs = made[name].train()
    for flags in [("--gradients",), ("--gradients", "--plain")]:
        arrays, errors = results[flags]
        ours = arrays[made[name].folder]
        assert "output" in ours, errors
        assert set(ours) - {"logits"} == set(theirs)
        for key, value in theirs.items():
            assert reference.difference(ours[key], value) < tolerance(name), (flags, key)
