"""What a file of this project looks like (CONTRIBUTING.md, "House rules"), as a function from a tree to a list of breaches."""

import re

SOURCE_LINES = 400
HEADER_LINES = 150
# Files that are longer, and how long they may be; they shrink, or are cut in two, and leave this list.
LONGER = {
    "coordinator/coordinator.h": 170,  # every call of the two services, and one lock around them all
    "model/graph.cc": 430,
}

FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "manager", "impl", "common", "misc"}
FORBIDDEN_TYPE = re.compile(r"^\s*(?:class|struct|enum class)\s+(\w*(?:Util|Utils|Helper|Helpers|Manager|Impl|Common))\b", re.MULTILINE)
SLEEP = re.compile(r"\b(?:sleep_for|SleepFor|usleep|nanosleep|sleep)\s*\(")
LATER = re.compile(r"\b(?:TODO|FIXME)\b")
USING = re.compile(r"^using namespace\b", re.MULTILINE)


def breaches(tree):
    """One line a breach."""
    listed = {source for target in tree.targets() for source in target.sources}
    for path in tree.sources:
        text = tree.files[path]
        yield from _names(path, text)
        yield from _size(path, text)
        if path.endswith(".h"):
            yield from _header(path, text)
        elif path not in listed:
            yield f"{path}: no CMakeLists.txt lists it"
        if LATER.search(text):
            yield f"{path}: a TODO belongs in an issue"
        if path.endswith("_test.cc") and SLEEP.search(text):
            yield f"{path}: a test waits for an event or turns a manual clock; it does not sleep"
    for target in tree.targets():
        for source in target.sources:
            if source not in tree.files and not source.startswith("$"):
                yield f"{source}: listed in target {target.name}, but there is no such file"


def _names(path, text):
    stem = path.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    for word in set(stem.split("_")) & FORBIDDEN_NAMES:
        yield f"{path}: a file called '{word}' says nothing; name what is in it"
    for name in FORBIDDEN_TYPE.findall(text):
        yield f"{path}: a type called {name} says nothing; name what it is"


def _size(path, text):
    allowed = LONGER.get(path, HEADER_LINES if path.endswith(".h") else SOURCE_LINES)
    lines = text.count("\n")
    if lines > allowed and not path.endswith("_test.cc"):
        yield f"{path}: {lines} lines, {allowed} allowed; look for the missing noun"


def _header(path, text):
    lines = text.split("\n")
    if lines[0] != "#pragma once":
        yield f"{path}: a header begins with #pragma once"
    if not any(line.startswith("//") for line in lines[1:4]):
        yield f"{path}: a header opens by saying what it is"
    if USING.search(text):
        yield f"{path}: using namespace in a header"
