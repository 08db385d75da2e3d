"""Who may include whom (docs/architecture.md, "Folders"), as a function from a tree to a list of breaches."""

import fnmatch

# A folder may include itself, and these.
FOLDERS = {
    "base": set(),
    "rpc": {"base", "proto"},
    "dataset": {"base", "proto"},
    "ledger": {"base", "proto", "dataset"},
    "memory": {"base", "proto"},
    "allreduce": {"base", "proto"},
    "model": {"base", "proto", "memory"},
    "trainer": {"base", "proto", "rpc", "dataset", "model", "memory", "allreduce"},
    "coordinator": {"base", "proto", "rpc", "memory"},
    "worker": {"base", "proto", "rpc"},
    "client": {"base", "proto", "rpc", "ledger", "dataset"},
    "examples": {"base", "dataset"},
}
# Benchmarks and tests may include what they measure.
FREE = {"bench", "tests"}

# Headers from elsewhere, and the files that may name them.
TORCH = ("torch/", "ATen/", "c10/", "caffe2/")
PLACES = [
    (TORCH, ["model/*", "trainer/*", "memory/*allocator*", "memory/*trace*"]),
    (("nccl.h",), ["allreduce/nccl*"]),
    (("grpcpp/", "grpc/"), ["rpc/*", "client/*", "*/main.cc", "*/*service*", "*/link*", "*/*link.*", "coordinator/call.h"]),
    (("sqlite3.h",), ["coordinator/store*", "coordinator/sqlite*"]),
    (("prometheus/",), ["*/*metrics*"]),
]
# These processes start in milliseconds because nothing of libtorch comes near them.
WITHOUT_TORCH = {"base", "rpc", "dataset", "ledger", "allreduce", "coordinator", "worker", "client"}


def is_torch(header):
    return header.startswith(TORCH)


def is_proto(header):
    return header.startswith("proto/") and header.endswith(".pb.h")


def breaches(tree):
    """One line a breach, each naming the file, what it includes, and the rule."""
    found = []
    torch_sources = {source for target in tree.targets() if target.torch for source in target.sources}
    for path in tree.sources:
        folder = path.split("/")[0]
        if folder in FREE:
            found += _mixed(tree, path, torch_sources)
            continue
        if folder not in FOLDERS:
            found.append(f"{path}: '{folder}' is not in the list of folders")
            continue
        found += _wrong_folder(path, folder, tree.includes[path])
        found += _wrong_place(path, tree.includes[path])
        found += _torch_reached(tree, path, folder)
        found += _mixed(tree, path, torch_sources)
    return found


def _wrong_folder(path, folder, includes):
    for header in includes:
        other = header.split("/")[0]
        ours = other in FOLDERS or other in FREE or is_proto(header)
        if header.startswith("."):
            yield f"{path}: {header} is not relative to the root"
        elif "/" in header and ours and other != folder and other not in FOLDERS[folder]:
            yield f"{path}: {folder} may not include {header}"


def _wrong_place(path, includes):
    if path.endswith("_test.cc"):
        return
    for header in includes:
        for prefixes, places in PLACES:
            if header.startswith(prefixes) and not any(fnmatch.fnmatch(path, place) for place in places):
                yield f"{path}: <{header}> belongs in {', '.join(places)} only"


def _torch_reached(tree, path, folder):
    if folder not in WITHOUT_TORCH:
        return
    for header, chain in tree.reached(path).items():
        if is_torch(header):
            yield f"{path}: {folder} is without libtorch, but reaches it: {' -> '.join(chain)}"
            return


def _mixed(tree, path, torch_sources):
    """The wheel carries an old google/protobuf: one translation unit never has both, the precompiled header included."""
    if not path.endswith(".cc"):
        return
    reached = tree.reached(path)
    proto = next((chain for header, chain in reached.items() if is_proto(header)), None)
    torch = next((chain for header, chain in reached.items() if is_torch(header)), None)
    if torch is None and path in torch_sources:
        torch = ["its target's precompiled header (TORCH)"]
    if proto and torch:
        yield f"{path}: libtorch and a generated proto header in one translation unit: {' -> '.join(torch)} and {' -> '.join(proto)}"
