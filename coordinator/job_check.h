#pragma once
// What can be said about a job before any worker has seen its model and data. Pure functions.

#include <string>
#include <vector>

#include "proto/job.pb.h"

namespace lockstep {

// Every error at once, each beginning with the field's path and saying what would be right. Empty: the job may be stored and
// planned.
std::vector<std::string> CheckJob(const v1::Job& job);

// What is not an error, but worth telling the user: a maximum of replicas above the virtual replicas, which is capped to them.
std::vector<std::string> JobNotes(const v1::Job& job);

// A name that can be a file in a folder of ours: no separators, no leading dot, at most 200 bytes of letters, digits and "._-+
// ".
bool IsPlainFileName(const std::string& name);

}  // namespace lockstep
