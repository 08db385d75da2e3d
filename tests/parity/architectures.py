"""The architectures of keras.applications that we promise, at small sizes, and their variations for tests."""
import keras

A = keras.applications


def _no_drop(name: str, **options):
    """An architecture that drops nothing in training: Keras's random numbers are not ours."""

    def make(**more):
        model = getattr(A, name)(**options, **more)
        for layer in model._flatten_layers():
            for rate in ("rate", "drop_path_rate"):
                if isinstance(getattr(layer, rate, None), float):
                    setattr(layer, rate, 0.0)
        return model

    return make


# Name: (builder, pixels). Inception, with and without residuals, and Xception want at least 75 and 71.
ALL = {
    "ResNet50": (A.ResNet50, 64),
    "ResNet50V2": (A.ResNet50V2, 64),
    "VGG16": (A.VGG16, 32),
    "MobileNetV2": (A.MobileNetV2, 96),
    "MobileNetV3Small": (_no_drop("MobileNetV3Small"), 96),
    "DenseNet121": (A.DenseNet121, 64),
    "EfficientNetB0": (_no_drop("EfficientNetB0"), 64),
    "EfficientNetV2B0": (_no_drop("EfficientNetV2B0"), 64),
    "InceptionV3": (A.InceptionV3, 96),
    "InceptionResNetV2": (A.InceptionResNetV2, 80),
    "Xception": (A.Xception, 96),
    "ConvNeXtTiny": (_no_drop("ConvNeXtTiny"), 64),
}


def build(name: str, classes: int = 10, **options) -> keras.Model:
    make, pixels = ALL[name]
    return make(weights=None, classes=classes, input_shape=(pixels, pixels, 3), **options)


def pixels(name: str) -> int:
    return ALL[name][1]


def takes_bytes(name: str) -> bool:
    """Whether the graph rescales its pictures itself."""
    return name in ("MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny")
