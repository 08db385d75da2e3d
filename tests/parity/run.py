"""Runs parity tests under pytest: run.py PROBE TEST_FILE [pytest's arguments …]

Exit status 77, which CTest knows as "skipped", if this Python lacks Keras with TensorFlow, h5py or pytest.
"""
import importlib.util
import os
import pathlib
import sys


def main() -> int:
    missing = [name for name in ("keras", "tensorflow", "h5py", "pytest") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"SKIPPED: {sys.executable} has no {', '.join(missing)}; name a Python that has them with -DLOCKSTEP_REFERENCE_PYTHON=…")
        return 77
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES="")
    os.environ["LOCKSTEP_MODEL_PROBE"] = sys.argv[1]
    here = pathlib.Path(__file__).parent
    sys.path.insert(0, str(here))
    sys.dont_write_bytecode = True
    import pytest

    return int(pytest.main(["-q", "-p", "no:cacheprovider", str(here / sys.argv[2]), *sys.argv[3:]]))


if __name__ == "__main__":
    sys.exit(main())
