#pragma once
// A picture of a trainer's memory over one step, or of its CUDA device's, as SVG: what it takes beside the step, and on top of it the step
// of one virtual replica, allocation by allocation, in the colours of forward and backward; the peak with the layer that runs at it; the
// limit. Pure functions. Thread-safe.

#include <string>
#include <string_view>

#include "proto/lockstep.pb.h"

namespace lockstep {

// Of a job that was planned; one without a recorded course of memory gets a picture that says so.
std::string DrawMemory(const v1::JobStatus& status);

// As character data or a quoted attribute of XML: escaped, and without what XML cannot hold.
std::string XmlText(std::string_view text);

}  // namespace lockstep
