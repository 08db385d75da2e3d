#include "tests/cuda/fake_cudart.h"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <mutex>

namespace {

// Of addresses: wide enough for what is held to lie in pieces.
constexpr size_t kSpan = size_t{1} << 44;
constexpr size_t kUnit = 2 << 20;  // of a driver's pages

class Device {
 public:
  cudaError_t Give(void** address, size_t bytes) {
    const std::lock_guard lock(mutex_);
    const size_t size = (bytes + kUnit - 1) / kUnit * kUnit;
    if (held_ + size > total_) return cudaErrorMemoryAllocation;
    const uintptr_t begin = highest_ ? HighestGap(size) : LowestGap(size);
    ranges_[begin] = size;
    held_ += size;
    *address = reinterpret_cast<void*>(begin);
    return cudaSuccess;
  }

  cudaError_t Take(void* address) {
    const std::lock_guard lock(mutex_);
    const auto range = ranges_.find(reinterpret_cast<uintptr_t>(address));
    if (range == ranges_.end()) return cudaErrorInvalidValue;
    held_ -= range->second;
    ranges_.erase(range);
    return cudaSuccess;
  }

  void SetTotal(size_t bytes) {
    const std::lock_guard lock(mutex_);
    total_ = bytes;
  }
  void GiveHighest(bool highest) {
    const std::lock_guard lock(mutex_);
    highest_ = highest;
  }
  size_t held() const {
    const std::lock_guard lock(mutex_);
    return held_;
  }
  size_t total() const {
    const std::lock_guard lock(mutex_);
    return total_;
  }

 private:
  uintptr_t LowestGap(size_t size) const {
    uintptr_t begin = kFakeCudartFirst;
    for (const auto& [address, taken] : ranges_) {
      if (address - begin >= size) break;
      begin = address + taken;
    }
    return begin;
  }
  uintptr_t HighestGap(size_t size) const {
    uintptr_t end = kFakeCudartFirst + kSpan;
    for (auto range = ranges_.rbegin(); range != ranges_.rend(); ++range) {
      if (end - (range->first + range->second) >= size) break;
      end = range->first;
    }
    return end - size;
  }

  mutable std::mutex mutex_;
  std::map<uintptr_t, size_t> ranges_;
  size_t held_ = 0;
  size_t total_ = kFakeCudartMost;
  bool highest_ = false;
};

Device& TheDevice() {
  static Device* const device = new Device;
  return *device;
}

}  // namespace

extern "C" {

void fake_cudart_set_total(size_t bytes) { TheDevice().SetTotal(bytes); }
void fake_cudart_give_highest(bool highest) { TheDevice().GiveHighest(highest); }
size_t fake_cudart_held() { return TheDevice().held(); }

cudaError_t cudaMalloc(void** address, size_t bytes) { return TheDevice().Give(address, bytes); }
cudaError_t cudaFree(void* address) { return TheDevice().Take(address); }
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = TheDevice().total();
  *free = *total - TheDevice().held();
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  properties->totalGlobalMem = kFakeCudartMost;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
// libtorch_cpu's profiler links it.
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t) { return "an error of the fake CUDA runtime"; }
const char* cudaGetErrorString(cudaError_t) { return "an error of the fake CUDA runtime"; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = *greatest = 0;
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
}
