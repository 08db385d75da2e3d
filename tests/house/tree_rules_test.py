"""Looks at every file of the tree, and fails where one breaks the house rules; and proves on small trees that it can."""

import os
import unittest

from tests.house.source_tree import SourceTree
from tests.house.tree_rules import breaches

HEADER = "#pragma once\n// A clock.\n"


def lines(files):
    return list(breaches(SourceTree(files)))


class TheRules(unittest.TestCase):
    def one(self, files, words):
        found = lines(files)
        self.assertEqual(1, len(found), found)
        self.assertIn(words, found[0])

    def test_a_lawful_tree_has_no_breach(self):
        self.assertEqual([], lines({
            "base/clock.h": HEADER,
            "base/clock.cc": "int x;\n",
            "base/clock_test.cc": "".join("int x;\n" for _ in range(900)),
            "base/CMakeLists.txt": "lockstep_library(base SOURCES clock.cc DEPS x::y)\nlockstep_test(t SOURCES clock_test.cc)\n",
        }))

    def test_names_that_say_nothing(self):
        self.one({"base/file_utils.h": HEADER}, "called 'utils'")
        self.one({"base/clock.h": HEADER + "class ClockManager {\n"}, "ClockManager")

    def test_a_word_that_only_contains_one(self):
        self.assertEqual([], lines({"base/utilization.h": HEADER + "struct Utilization {\n// the manager\n"}))

    def test_length(self):
        self.one({"base/clock.h": HEADER + "int x;\n" * 149}, "151 lines, 150 allowed")

    def test_a_source_in_no_target(self):
        self.one({"base/clock.cc": "", "base/CMakeLists.txt": "# clock.cc\nlockstep_library(base SOURCES)\n"}, "no CMakeLists.txt lists it")

    def test_a_target_without_its_source(self):
        self.one({"base/CMakeLists.txt": "lockstep_library(base SOURCES clock.cc)\n"}, "no such file")

    def test_headers_begin_and_open(self):
        self.one({"base/clock.h": "// A clock.\n// More.\n"}, "#pragma once")
        self.one({"base/clock.h": "#pragma once\nint x;\n"}, "opens by saying")
        self.one({"base/clock.h": HEADER + "using namespace std;\n"}, "using namespace")

    def test_sleeping_in_a_test(self):
        cmake = {"base/CMakeLists.txt": "lockstep_test(t SOURCES a_test.cc)\n"}
        self.one({"base/a_test.cc": "absl::SleepFor(absl::Seconds(1));\n", **cmake}, "does not sleep")
        self.assertEqual([], lines({"base/a_test.cc": "// it may not sleep\n", **cmake}))


class TheTree(unittest.TestCase):
    def test_no_breach(self):
        tree = SourceTree.read(os.environ.get("LOCKSTEP_SOURCE", "."))
        self.assertGreater(len(tree.sources), 50)
        found = lines(tree.files)
        self.assertFalse(found, "\n" + "\n".join(found))


if __name__ == "__main__":
    unittest.main()
