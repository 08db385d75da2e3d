#pragma once
// For loops over channels: vectors of 64 bytes, and one clone of a function for each width that processors have, chosen when the
// program starts. Lanes are independent, and the clones with fused multiply-add all give the same bits.

#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define LOCKSTEP_VECTOR_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define LOCKSTEP_VECTOR_CLONES
#endif
// What a clone is made of must become part of it.
#define LOCKSTEP_IN_CLONES inline __attribute__((always_inline))

namespace lockstep {

template <typename T>
struct LanesOf {
  typedef T Type __attribute__((vector_size(64)));
};
template <typename T>
using Lanes = typename LanesOf<T>::Type;
template <typename T>
constexpr int64_t kLanes = 64 / sizeof(T);

// V is Lanes<T> or T; it may begin anywhere.
template <typename V, typename T>
LOCKSTEP_IN_CLONES void Load(const T* from, V& vector) {
  __builtin_memcpy(&vector, from, sizeof(V));
}
template <typename V, typename T>
LOCKSTEP_IN_CLONES void Store(const V& vector, T* to) {
  __builtin_memcpy(to, &vector, sizeof(V));
}

}  // namespace lockstep
