"""The project's C++ sources as the house rules see them: files, their includes, and the targets that CMake lists them in.

Plain Python 3, so that it runs before anything is installed. A tree is read from a folder, or given as {path: text} in the
rules' own tests.
"""

import os
import posixpath
import re

SKIPPED = {"build", ".git", ".venv", ".setup", "__pycache__"}
INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', re.MULTILINE)
CMAKE_COMMENT = re.compile(r"#.*")
CMAKE_CALL = re.compile(r"\b(set|lockstep_library|lockstep_program|lockstep_test)\s*\(([^()]*(?:\([^()]*\)[^()]*)*)\)")
CMAKE_SECTIONS = {"SOURCES", "DEPS", "LABELS", "TIMEOUT", "TORCH"}


class Target:
    """One lockstep_library, lockstep_program or lockstep_test call. `sources` are paths from the root."""

    def __init__(self, name, torch, sources):
        self.name = name
        self.torch = torch
        self.sources = sources


class SourceTree:
    """`files` maps a path from the root, with slashes, to its text."""

    def __init__(self, files):
        self.files = files
        self.sources = sorted(p for p in files if p.endswith((".cc", ".h")))
        self.includes = {path: [a or b for a, b in INCLUDE.findall(files[path])] for path in self.sources}
        self._reached = {}

    @staticmethod
    def read(root):
        files = {}
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(f for f in folders if f not in SKIPPED)
            for name in names:
                if name.endswith((".cc", ".h")) or name == "CMakeLists.txt":
                    path = os.path.join(folder, name)
                    with open(path, encoding="utf-8") as file:
                        files[os.path.relpath(path, root).replace(os.sep, "/")] = file.read()
        return SourceTree(files)

    def reached(self, path):
        """Every header that `path` includes, directly or through ours: {header: the chain of files from `path` to it}."""
        if path not in self._reached:
            chains, waiting = {}, [(path, [path])]
            while waiting:
                current, chain = waiting.pop()
                for header in self.includes.get(current, []):
                    if header not in chains:
                        chains[header] = chain + [header]
                        waiting.append((header, chains[header]))
            self._reached[path] = chains
        return self._reached[path]

    def targets(self):
        """What the CMakeLists.txt files declare with the verbs of cmake/Targets.cmake."""
        found = []
        for path, text in sorted(self.files.items()):
            if not path.endswith("CMakeLists.txt"):
                continue
            variables = {}
            for verb, body in CMAKE_CALL.findall(CMAKE_COMMENT.sub("", text)):
                words = [word for token in body.split() for word in variables.get(token, [token])]
                if not words:
                    continue
                if verb == "set":
                    variables["${%s}" % words[0]] = words[1:]
                else:
                    found.append(_target(posixpath.dirname(path), words))
        return found


def _target(folder, words):
    section, sources = None, []
    for word in words[1:]:
        if word in CMAKE_SECTIONS:
            section = word
        elif section == "SOURCES":
            path = word.replace("${CMAKE_SOURCE_DIR}/", "") if word.startswith("${CMAKE_SOURCE_DIR}/") else posixpath.join(folder, word)
            sources.append(posixpath.normpath(path))
    return Target(words[0], "TORCH" in words, sources)
