#pragma once
// Who else sees a tensor's bytes: where nobody does, what follows from them may be written over them.

#include <ATen/core/Tensor.h>

#include <cstddef>

namespace lockstep {

// `handles`: how many there are of the tensor, the caller's included, and others of its memory. A tensor that it is a view of, and that is
// held by nobody but it, does not count.
inline bool IsOwnedAlone(const at::Tensor& tensor, size_t handles, size_t others = 0) {
  const size_t sharers = tensor.is_view() && tensor._base().use_count() == 1 ? 2 : 1;
  return tensor.use_count() == handles && tensor.storage().use_count() == sharers + others && tensor.is_contiguous();
}

}  // namespace lockstep
