"""Bad input: a clear error that names the thing, the right exit status, and nothing lost or left."""

import os
import shutil
import struct
import subprocess
import unittest
import zlib

from tests.cluster import harness


def png(bits, color_type, channels):
    """An 8 by 8 PNG of zeroes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(8 * channels * bits // 8)) * 8
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, bits, color_type, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))  # fmt: skip


def cmyk_jpeg():
    """An 8 by 8 baseline JPEG with four components, all of one value: one Huffman code for "no difference", one for "end of block"."""

    def segment(marker, data):
        return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data

    one_code = bytes([1] + [0] * 15 + [0])
    adobe = segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, 0))
    frame = segment(0xC0, struct.pack(">BHHB", 8, 8, 8, 4) + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5)))
    tables = segment(0xDB, b"\0" + bytes([16] * 64)) + segment(0xC4, b"\x00" + one_code) + segment(0xC4, b"\x10" + one_code)
    scan = segment(0xDA, b"\x04" + b"".join(bytes([i, 0]) for i in range(1, 5)) + b"\x00\x3f\x00")
    return b"\xff\xd8" + adobe + tables + frame + scan + b"\x00" + b"\xff\xd9"


class BadInputTest(harness.ClusterTest):
    def fails(self, code, parts, *arguments, **options):
        """`parts` are all to be in the errors, which are to be free of what only a crash leaves there."""
        outcome = self.run_lockstep(*arguments, **options)
        self.assertEqual(outcome.code, code, f"{outcome.out}\n{outcome.err}")
        for part in parts:
            self.assertIn(part, outcome.err)
        for part in ("terminate called", "Segmentation", "Traceback"):
            self.assertNotIn(part, outcome.err)
        return outcome

    def fit_fails(self, parts, *arguments, code=2, archive="tiny.keras", train=harness.TRAIN, batch=16):
        out = self.path("never.keras")
        outcome = self.fails(
            code, parts, "fit", harness.model(archive), "--train", train, "--batch", batch, "--epochs", 1, "--out", out, *arguments)
        self.assertFalse(os.path.exists(out))
        return outcome

    def pictures(self):
        """A copy of the training pictures to spoil."""
        folder = self.path("pictures")
        if not os.path.exists(folder):
            shutil.copytree(harness.TRAIN, folder)
        return folder

    def spoiled(self, name, contents):
        folder = self.pictures()
        path = os.path.join(folder, sorted(os.listdir(folder))[0], name)
        with open(path, "wb") as file:
            file.write(contents)
        return path

    # What is seen before anything starts.

    def test_missing_folders_and_files(self):
        self.fit_fails(["--train", "no such folder", "/no/such/folder"], train="/no/such/folder")
        self.fit_fails(["--validation", "no such folder", "/no/validation"], "--validation", "/no/validation")
        self.fit_fails(["model", "none.keras"], archive="none.keras")

    def test_fields_that_contradict_each_other(self):
        self.fit_fails(["16 is not a multiple of virtual_replicas, 5"], "--virtual-replicas", 5)
        self.fit_fails(["4 replicas have nothing to do with 2 virtual replicas"], "--virtual-replicas", 2, "--replicas", 4)
        self.fit_fails(["--epochs and --steps"], "--steps", 3)
        self.fit_fails(["--batch", "'many'"], batch="many")

    def test_unknown_keys_with_the_nearest_known_ones(self):
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write("bacth: 3\ndata:\n  imgae: {size: [1, 2]}\n  image: {sice: 3}\n")
        self.fit_fails(
            ["job.yaml:1: bacth: unknown key; did you mean 'batch'?", "job.yaml:3: data.imgae: unknown key; did you mean 'image'?",
             "job.yaml:4: data.image.sice: unknown key; did you mean 'size'?"], "--job", self.path("job.yaml"))  # fmt: skip

    def test_outputs_are_looked_at_before_training(self):
        outcome = self.fit_fails(["--summary", "no such folder"], "--summary", "/no/such/folder/s.json")
        self.assertLess(outcome.seconds, 5)
        self.fit_fails(["--step-log"], "--step-log", self.folder)

    # What planning sees.

    def test_archives(self):
        with open(self.path("text.keras"), "w", encoding="utf-8") as file:
            file.write("not an archive")
        self.fit_fails(["text.keras", "not a .keras archive"], archive=self.path("text.keras"))
        self.fit_fails(["truncated.keras"], archive="truncated.keras")
        self.fit_fails(["spoiled.keras"], archive="spoiled.keras")

    def test_weights_of_the_wrong_shape(self):
        self.fit_fails(["dense", "shape"], archive="wrong_shape.keras")

    def test_an_unknown_layer_by_name_and_place(self):
        self.fit_fails(["LSTM", "the_odd_one"], archive="unknown_layer.keras")

    def test_a_model_whose_output_does_not_fit_the_classes(self):
        self.fit_fails(["3", "4 classes"], archive="too_few_units.keras")

    def test_unknown_optimizer_loss_and_metric(self):
        self.fit_fails(["sdg"], "--optimizer", "sdg")
        self.fit_fails(["sparse_crossentropy"], "--loss", "sparse_crossentropy")
        self.fit_fails(["acuracy"], "--metrics", "acuracy")

    def test_folders_without_pictures(self):
        folder = self.path("nothing")
        os.mkdir(folder)
        self.fit_fails([folder], train=folder)
        empty_class = os.path.join(self.pictures(), "zebra")
        os.mkdir(empty_class)
        self.fit_fails(["zebra"], train=self.pictures())

    def test_it_does_not_fit(self):
        self.fit_fails(["memory"], "--memory-limit", "50KiB", code=3)

    # What training sees.

    def test_pictures_that_cannot_be_decoded_are_named(self):
        first_class = os.path.join(harness.TRAIN, sorted(os.listdir(harness.TRAIN))[0])
        with open(os.path.join(first_class, sorted(os.listdir(first_class))[0]), "rb") as file:
            good = file.read()
        for name, contents in {
            "empty.jpg": b"",
            "truncated.jpg": good[: len(good) // 2],
            "text.jpg": b"this is a text file\n",
            "cmyk.jpg": cmyk_jpeg(),
            "deep.png": png(16, 2, 3),
        }.items():
            with self.subTest(name):
                path = self.spoiled(name, contents)
                self.fit_fails([name], train=self.pictures())
                os.unlink(path)

    def test_bad_pictures_may_be_skipped_and_are_listed(self):
        self.spoiled("empty.jpg", b"")
        self.spoiled("text.jpg", b"this is a text file\n")
        self.succeed(
            "fit", harness.model("tiny.keras"), "--train", self.pictures(), "--batch", 16, "--epochs", 1, "--skip-bad", 2, "--log-samples",
            "--out", self.path("a.keras"), "--summary", self.path("a.json"), "--step-log", self.path("a.jsonl"))  # fmt: skip
        listed = self.read_json("a.json")["history"][0]["bad_samples"]
        self.assertEqual(sorted(os.path.basename(line.split(":")[0]) for line in listed), ["empty.jpg", "text.jpg"])
        used = [path for step in self.read_steps("a.jsonl") for path in step["samples"]]
        self.assertEqual(len(used), 70)
        self.fit_fails(["bad_samples"], "--skip-bad", 1, train=self.pictures())

    # What the end sees.

    def test_a_full_disk_at_output_loses_nothing(self):
        small = self.path("small")
        os.mkdir(small)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", small], capture_output=True, check=False)
        if mounted.returncode != 0:
            self.skipTest("a small file system to fill up takes root: " + mounted.stderr.decode().strip())
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        outcome = self.run_lockstep(
            "fit", harness.model("tiny.keras"), "--train", harness.TRAIN, "--batch", 16, "--epochs", 1, "--out", os.path.join(small, "a.keras"))
        self.assertEqual(outcome.code, 1, outcome.err)
        self.assertIn("No space left", outcome.err)
        self.assertIn("nothing is lost: the file is ", outcome.err)
        kept = outcome.err.split("nothing is lost: the file is ")[1].split("\n")[0]
        self.assertEqual(os.listdir(small), [])
        self.succeed("evaluate", kept, "--data", harness.VALIDATION, "--batch", 8)
        shutil.rmtree(os.path.dirname(os.path.dirname(kept)))


if __name__ == "__main__":
    unittest.main(verbosity=2)
