#pragma once
// A CUDA runtime without a device: it gives addresses for memory that is never touched, so that c10's allocator runs where there is no GPU.
// A library of libcudart's name and symbol version, linked before the real one. One device; what c10's allocator does not call answers
// cudaErrorNotSupported.
//
// Thread-safe.

#include <cstddef>
#include <cstdint>

// What the device's properties say it has: c10 reads that once, and takes memory fractions of it. And its lowest address.
inline constexpr size_t kFakeCudartMost = size_t{1} << 40;
inline constexpr uintptr_t kFakeCudartFirst = uintptr_t{1} << 44;

extern "C" {
// What it gives at most, all together. Initially kFakeCudartMost.
void fake_cudart_set_total(size_t bytes);
// Whether memory is given at the highest free address instead of the lowest.
void fake_cudart_give_highest(bool highest);
// What is given now.
size_t fake_cudart_held(void);
}
