#pragma once
// The digest of what a virtual replica consumed, computed from the files themselves, for Ledger::DigestCheck.

#include <string>

#include "dataset/index.h"
#include "proto/progress.pb.h"

namespace lockstep {

// Empty: the files below `folder` have the digest that was recorded. Else what is wrong, naming the files.
std::string CheckFiles(const dataset::Index& index, const std::string& folder, const v1::LeafUse& use);

}  // namespace lockstep
