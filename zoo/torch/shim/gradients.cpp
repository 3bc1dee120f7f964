// Sums of gradients over all ranks, which start during a backward pass.
//
// libtorch calls a hook when it has added to the gradient of a leaf tensor. If all gradients of a bucket are final, the hook
// copies them to one tensor and starts its all-reduce, which runs on threads of Gloo or on a stream of NCCL. Every rank starts
// the buckets in the same order, because a group matches operations of its ranks by their order: a bucket waits for those
// before it. No exception leaves a hook; the error of a hook is that of `laps_sum_start`.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/node.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "group.hpp"

namespace {

using torch::autograd::impl::post_acc_grad_hooks;
using torch::autograd::impl::set_post_acc_grad_hooks;

struct Bucket {
  std::vector<at::Tensor> weights;
  // Number of weights whose gradient is not final.
  size_t missing = 0;
  // Gradients of the weights, set when the bucket starts.
  std::vector<at::Tensor> gradients;
  // The gradients, later their sums.
  at::Tensor values;
  // Null before the start, and without gradients.
  c10::intrusive_ptr<c10d::Work> work;
};

struct Sums {
  c10::intrusive_ptr<c10d::Backend> backend;
  std::vector<Bucket> buckets;
  // Protects what follows, and the buckets: two backward passes may run on two threads.
  std::mutex mutex;
  size_t started = 0;
  // The first error of a hook.
  std::unique_ptr<char, decltype(&std::free)> error{nullptr, &std::free};

  // Starts the next bucket, on the calling thread's stream.
  void start_next() {
    Bucket& bucket = buckets[started];
    const at::NoGradGuard no_grad;
    std::vector<at::Tensor> flat;
    for (const at::Tensor& weight : bucket.weights) {
      const at::Tensor& gradient = weight.grad();
      if (!gradient.defined()) continue;
      bucket.gradients.push_back(gradient);
      flat.push_back(gradient.reshape({-1}));
    }
    if (!flat.empty()) {
      bucket.values = at::cat(flat);
      std::vector<at::Tensor> operands{bucket.values};
      bucket.work = backend->allreduce(operands);
    }
    ++started;
  }

  // A backward pass has added to the gradient of a weight of bucket `index`, to which `left` more will add.
  void added(size_t index, int32_t& left) {
    const std::lock_guard<std::mutex> lock(mutex);
    if (error) return;
    error.reset(guarded([&] {
      if (left == 0) throw std::runtime_error("a gradient has changed after it was final");
      if (--left > 0) return;
      --buckets[index].missing;
      while (started < buckets.size() && buckets[started].missing == 0) start_next();
    }));
  }
};

class Hook final : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(std::shared_ptr<Sums> sums, size_t bucket, int32_t passes)
      : sums_(std::move(sums)), bucket_(bucket), left_(passes) {}

  void operator()(const at::Tensor&) override {
    sums_->added(bucket_, left_);
  }

 private:
  std::shared_ptr<Sums> sums_;
  size_t bucket_;
  int32_t left_;
};

}  // namespace

extern "C" {

struct LapsGradientSum {
  std::shared_ptr<Sums> sums = std::make_shared<Sums>();
  std::vector<at::Tensor> hooked;

  // A backward pass that has returned runs no hook: all weights are on one device, whose functions one thread runs.
  ~LapsGradientSum() {
    for (const at::Tensor& weight : hooked) set_post_acc_grad_hooks(weight, nullptr);
  }
};

// Prepares the sums of the gradients of `weights`, which are leaf tensors. Those of bucket `i` end at `ends[i]`. `passes` has
// the number of backward passes that add to the gradient of each weight from now on. A bucket starts when all its weights have
// had theirs; with a weight that has none, not before `laps_sum_start`.
char* laps_sum_open(LapsDistGroup* group, at::Tensor* const* weights, const int32_t* passes, const size_t* ends, size_t count,
                    LapsGradientSum** sum) {
  return guarded([&] {
    auto opened = std::make_unique<LapsGradientSum>();
    opened->sums->backend = group->backend;
    opened->sums->buckets.resize(count);
    size_t position = 0;
    for (size_t index = 0; index < count; ++index) {
      Bucket& bucket = opened->sums->buckets[index];
      for (; position < ends[index]; ++position) bucket.weights.push_back(*weights[position]);
      bucket.missing = bucket.weights.size();
    }
    position = 0;
    for (size_t index = 0; index < count; ++index) {
      for (; position < ends[index]; ++position) {
        if (passes[position] == 0) continue;
        opened->hooked.push_back(*weights[position]);
        set_post_acc_grad_hooks(*weights[position], std::make_unique<Hook>(opened->sums, index, passes[position]));
      }
    }
    *sum = opened.release();
  });
}

// Forgets the sums and removes the hooks. Operations that have not ended hold what they need.
void laps_sum_close(LapsGradientSum* sum) {
  delete sum;
}

// Number of buckets that have started, for tests.
size_t laps_sum_started(LapsGradientSum* sum) {
  const std::lock_guard<std::mutex> lock(sum->sums->mutex);
  return sum->sums->started;
}

// Starts the other buckets in their order. Fails if a hook has failed.
char* laps_sum_start(LapsGradientSum* sum) {
  return guarded([&] {
    const std::lock_guard<std::mutex> lock(sum->sums->mutex);
    if (sum->sums->error) throw std::runtime_error(sum->sums->error.get());
    while (sum->sums->started < sum->sums->buckets.size()) sum->sums->start_next();
  });
}

// Waits for all sums.
char* laps_sum_wait(LapsGradientSum* sum) {
  return guarded([&] {
    for (const Bucket& bucket : sum->sums->buckets) {
      if (bucket.work) bucket.work->wait();
    }
  });
}

// Replaces the gradients by the sums.
char* laps_sum_copy(LapsGradientSum* sum) {
  return guarded([&] {
    const at::NoGradGuard no_grad;
    for (const Bucket& bucket : sum->sums->buckets) {
      int64_t start = 0;
      for (const at::Tensor& gradient : bucket.gradients) {
        gradient.copy_(bucket.values.narrow(0, start, gradient.numel()).view(gradient.sizes()));
        start += gradient.numel();
      }
    }
  });
}

// Whether `tensor` has a hook, for tests.
int32_t laps_has_hook(at::Tensor* tensor) {
  return post_acc_grad_hooks(*tensor) != nullptr;
}

// Gives the function that computed `tensor` the priority of those that add to the gradients of leaf tensors: a backward pass runs
// it as soon as it can. Functions run in the reverse of the order in which they were recorded otherwise.
char* laps_run_backward_early(at::Tensor* tensor) {
  return guarded([&] {
    if (const auto& function = tensor->grad_fn()) function->set_sequence_nr(UINT64_MAX);
  });
}

}  // extern "C"
