#pragma once
// HDF5's serial build keeps state for the whole process: whoever calls into it, from whatever thread, holds this lock.

#include <mutex>

namespace lockstep {

std::mutex& Hdf5Lock();

}  // namespace lockstep
