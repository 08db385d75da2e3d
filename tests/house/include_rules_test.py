"""Walks the includes of the whole tree, and fails where one breaks the rules; and proves on small trees that it can."""

import os
import unittest

from tests.house.include_rules import breaches
from tests.house.source_tree import SourceTree


def lines(files):
    return list(breaches(SourceTree(files)))


class TheRules(unittest.TestCase):
    def test_a_lawful_tree_has_no_breach(self):
        self.assertEqual([], lines({
            "base/file.h": "#include <string>\n",
            "trainer/link.cc": '#include <grpcpp/grpcpp.h>\n#include "proto/cluster.pb.h"\n#include "rpc/channel.h"\n',
            "rpc/channel.h": '#include "base/file.h"\n#include "absl/status/status.h"\n',
            "coordinator/store.cc": "#include <sqlite3.h>\n",
            "worker/metrics.h": "#include <prometheus/gauge.h>\n",
        }))

    def test_folders_that_may_not_include_each_other(self):
        for path, header in [("coordinator/a.cc", "worker/b.h"), ("worker/a.cc", "trainer/b.h"), ("trainer/a.cc", "coordinator/b.h"),
                             ("base/a.h", "dataset/b.h"), ("dataset/a.h", "memory/b.h"), ("client/a.h", "model/b.h"),
                             ("base/a.h", "proto/job.pb.h"), ("base/a.h", "tests/b.h")]:
            with self.subTest(path=path, header=header):
                found = lines({path: f'#include "{header}"\n'})
                self.assertEqual(1, len(found), found)
                self.assertIn(header, found[0])

    def test_a_folder_that_nobody_knows(self):
        self.assertIn("'misc' is not in the list", lines({"misc/a.cc": ""})[0])

    def test_headers_that_belong_elsewhere(self):
        for path, header in [("coordinator/admission.cc", "sqlite3.h"), ("trainer/fit.cc", "grpcpp/grpcpp.h"),
                             ("worker/agent.cc", "prometheus/gauge.h"), ("memory/category.h", "ATen/ATen.h"),
                             ("allreduce/socket.cc", "nccl.h")]:
            with self.subTest(path=path, header=header):
                self.assertTrue(any("belongs in" in line for line in lines({path: f"#include <{header}>\n"})))

    def test_libtorch_reached_through_a_header_of_ours(self):
        found = lines({
            "coordinator/admission.cc": '#include "memory/cpu_allocator.h"\n',
            "memory/cpu_allocator.h": "#include <c10/core/Allocator.h>\n",
        })
        self.assertEqual(["coordinator/admission.cc: coordinator is without libtorch, but reaches it: "
                          "coordinator/admission.cc -> memory/cpu_allocator.h -> c10/core/Allocator.h"], found)

    def test_libtorch_and_proto_meet_through_headers(self):
        files = {
            "trainer/fit.cc": '#include "trainer/a.h"\n#include "trainer/b.h"\n',
            "trainer/a.h": "#include <ATen/ATen.h>\n",
            "trainer/b.h": '#include "proto/job.pb.h"\n',
        }
        self.assertIn("one translation unit", lines(files)[0])
        files["trainer/b.h"] = ""
        self.assertEqual([], lines(files))

    def test_libtorch_and_proto_meet_through_the_precompiled_header(self):
        files = {"trainer/link.cc": '#include "proto/job.pb.h"\n', "trainer/CMakeLists.txt": "lockstep_library(link TORCH SOURCES link.cc)\n"}
        self.assertIn("precompiled header", lines(files)[0])
        files["trainer/CMakeLists.txt"] = "lockstep_library(link SOURCES link.cc)\n"
        self.assertEqual([], lines(files))

    def test_a_source_named_through_a_variable_is_seen(self):
        found = lines({"trainer/link.cc": '#include "proto/job.pb.h"\n',
                       "trainer/CMakeLists.txt": "set(sources link.cc)\nlockstep_library(link TORCH SOURCES ${sources})\n"})
        self.assertIn("precompiled header", found[0])

    def test_paths_that_climb(self):
        self.assertIn("not relative to the root", lines({"base/a.cc": '#include "../proto/x.h"\n'})[0])


class TheTree(unittest.TestCase):
    def test_no_breach(self):
        tree = SourceTree.read(os.environ.get("LOCKSTEP_SOURCE", "."))
        self.assertGreater(len(tree.sources), 50)
        found = list(breaches(tree))
        self.assertFalse(found, "\n" + "\n".join(found))


if __name__ == "__main__":
    unittest.main()
