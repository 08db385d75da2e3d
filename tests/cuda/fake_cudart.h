#pragma once
// A CUDA runtime without a device: it gives addresses for memory that is never touched, so that c10's allocator runs where there is no
// GPU. One device, whose memory is what SetTotal says. Everything that the allocator does not need says cudaErrorNotSupported.

#include <cstddef>

// What the device's properties say it has. c10 reads that once, and takes memory fractions of it.
#define FAKE_CUDART_MOST (size_t{1} << 40)

extern "C" {
// REQUIRES: nothing is held.
void fake_cudart_set_total(size_t bytes);
// Where memory is given: at the lowest free address, as the model has it, or at the highest. REQUIRES: nothing is held.
void fake_cudart_give_highest(bool highest);
size_t fake_cudart_held(void);
}
