"""What every cluster test needs, made once: LOCKSTEP_CLUSTER_DATA/models and LOCKSTEP_CLUSTER_DATA/pictures. Run by ctest before them."""

import os
import shutil
import subprocess
import sys

from tests.cluster import tiny_models


def main():
    folder = os.environ["LOCKSTEP_CLUSTER_DATA"]
    shutil.rmtree(folder, ignore_errors=True)
    tiny_models.main(os.path.join(folder, "models"))
    pictures = os.path.join(os.environ["LOCKSTEP_BIN"], "lockstep-make-pictures")
    subprocess.run(
        [pictures, "--out", os.path.join(folder, "pictures"), "--classes", str(tiny_models.CLASSES), "--train", "70", "--validation", "18",
         "--size", "40x32", "--seed", "9"],
        check=True)  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
