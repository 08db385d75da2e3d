#include "trainer/kernels_of_many.h"

#include <ATen/Parallel.h>
#include <ATen/core/ivalue.h>
#include <ATen/record_function.h>

#include <memory>
#include <string_view>

// Of the OpenMP runtime that libtorch brings; at::set_num_threads would also throw libtorch's caches away.
extern "C" void omp_set_num_threads(int threads);

namespace lockstep {
namespace {

thread_local ScopedKernelsOfMany* current = nullptr;

bool AllAre(const c10::IValue& list, int64_t value) {
  for (const int64_t one : list.toIntVector()) {
    if (one != value) return false;
  }
  return true;
}

}  // namespace

// The kernel is chosen, by the number of threads among other things, before anything else is called; what is called then is computed on
// one thread.
class ConvolutionObserver {
 public:
  static std::unique_ptr<at::ObserverContext> Begin(const at::RecordFunction& function) {
    omp_set_num_threads(ChoosesByThreads(function) ? 2 : 1);
    return nullptr;
  }
  static void End(const at::RecordFunction&, at::ObserverContext*) { omp_set_num_threads(1); }

 private:
  static bool ChoosesByThreads(const at::RecordFunction& function) {
    const std::string_view name = function.name();
    if (name == "aten::convolution" || name == "aten::_convolution") return true;
    if (name != "aten::convolution_backward") return false;
    // grad_output, input, weight, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, output_mask
    const c10::ArrayRef<const c10::IValue> inputs = function.inputs();
    const at::Tensor& weight = inputs[2].toTensor();
    if (weight.dim() != 4 || weight.size(2) != 1 || weight.size(3) != 1 || !AllAre(inputs[4], 1) || !AllAre(inputs[6], 1)) return false;
    // The gradient of the input comes first, and calls something. Where it is not needed the kernel itself would run on two threads.
    if (inputs[10].toBoolList().get(0)) return true;
    current->all_taken_ = false;
    return false;
  }
};

ScopedKernelsOfMany::ScopedKernelsOfMany()
    : callback_(at::addThreadLocalCallback(at::RecordFunctionCallback(&ConvolutionObserver::Begin, &ConvolutionObserver::End)
                                               .needsInputs(true)
                                               .scopes({at::RecordScope::FUNCTION}))) {
  current = this;
  // The first question on a thread sets the number that libtorch has for all threads.
  at::get_num_threads();
}

ScopedKernelsOfMany::~ScopedKernelsOfMany() {
  at::removeCallback(callback_);
  omp_set_num_threads(1);
  current = nullptr;
}

}  // namespace lockstep
