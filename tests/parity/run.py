"""Runs parity tests under pytest: run.py PROBE TEST_FILE [pytest's arguments …]

Fails if this Python lacks what scripts/requirements/test.pip names: tests against a reference that is not there prove nothing.
"""
import importlib.util
import os
import pathlib
import sys
import tempfile


def main() -> int:
    missing = [name for name in ("keras", "tensorflow", "h5py", "pytest") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"{sys.executable} has no {', '.join(missing)}; run `make setup`, or name a Python that has them with -DLOCKSTEP_PYTHON=…")
        return 1
    os.environ.update(KERAS_BACKEND="tensorflow", TF_CPP_MIN_LOG_LEVEL="3", TF_ENABLE_ONEDNN_OPTS="0", CUDA_VISIBLE_DEVICES="")
    probe = pathlib.Path(sys.argv[1])
    os.environ[f"LOCKSTEP_{probe.name.upper()}"] = str(probe)
    here = pathlib.Path(__file__).parent
    sys.path.insert(0, str(here))
    sys.dont_write_bytecode = True
    import pytest

    with tempfile.TemporaryDirectory() as folder:
        return int(pytest.main(["-q", "-p", "no:cacheprovider", "--basetemp", os.path.join(folder, "tests"), str(here / sys.argv[2]), *sys.argv[3:]]))


if __name__ == "__main__":
    sys.exit(main())
