// Process groups of c10d for Rust.
//
// Every function returns null, or an error text that `laps_dist_free` frees. No function throws. Tensors are the
// `at::Tensor*` of tch; they have to be contiguous, because Gloo reads strided views wrongly.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#ifdef USE_C10D_NCCL
#include <c10/cuda/CUDAFunctions.h>
#include <c10/util/env.h>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

#include "group.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::milliseconds;

// libtorch prints the stack of every failed connection unless its logging is initialised, and its warnings repeat the
// errors that are returned here. A level in the environment wins.
void initialise_logging() {
  static const bool once = [] {
    setenv("TORCH_CPP_LOG_LEVEL", "ERROR", 0);
    c10::initLogging();
    return true;
  }();
  (void)once;
}

#ifdef USE_C10D_NCCL
// `wait` of NCCL returns when an operation is queued on the GPU. Blocking, it returns when the operation is done, so that a
// rank that does not answer is an error after the timeout, and the time of an operation includes the wait. A value in the
// environment wins, also under the former name. libtorch reads its environment under the lock that `set_env` takes.
void wait_for_nccl() {
  if (!c10::utils::has_env("NCCL_BLOCKING_WAIT")) c10::utils::set_env("TORCH_NCCL_BLOCKING_WAIT", "1", false);
}
#endif

Milliseconds remaining(Clock::time_point deadline) {
  const auto left = std::chrono::duration_cast<Milliseconds>(deadline - Clock::now());
  return std::max(left, Milliseconds(1));
}

std::string text_of(const std::vector<uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

}  // namespace

extern "C" {

// Field for field the Rust struct `OpenOptions`.
struct LapsDistOptions {
  const char* host;
  const char* prefix;
  int64_t timeout_ms;
  int32_t rank;
  int32_t world_size;
  int32_t cuda_device;
  uint16_t port;
  uint8_t hosts_store;
  uint8_t nccl;
};

void laps_dist_free(char* text) {
  std::free(text);
}

int32_t laps_dist_has_nccl() {
#ifdef USE_C10D_NCCL
  return 1;
#else
  return 0;
#endif
}

// Joins the group. All ranks of the group have to call this within the timeout.
char* laps_dist_open(const LapsDistOptions* options, LapsDistGroup** group) {
  return guarded([&] {
    initialise_logging();
#ifdef USE_C10D_NCCL
    // Before the store and the group start threads.
    if (options->nccl != 0) wait_for_nccl();
#endif
    const Milliseconds timeout(options->timeout_ms);
    const auto deadline = Clock::now() + timeout;
    const int rank = options->rank, world_size = options->world_size;

    c10d::TCPStoreOptions store_options;
    store_options.port = options->port;
    store_options.isServer = options->hosts_store != 0;
    store_options.waitWorkers = false;
    store_options.timeout = timeout;
    auto opened = std::make_unique<LapsDistGroup>();
    opened->store = c10::make_intrusive<c10d::PrefixStore>(
        options->prefix, c10::make_intrusive<c10d::TCPStore>(options->host, store_options));
    c10d::Store& store = *opened->store;

    // c10d finds neither a rank that is there twice nor ranks that count differently before it times out.
    const std::string own = std::to_string(rank), size = std::to_string(world_size);
    if (store.add("joined/" + own, 1) != 1) {
      throw std::runtime_error("rank " + own + " has joined already\n  expected: every RANK once\n  found: RANK=" + own +
                               " twice");
    }
    store.set("size/" + own, std::vector<uint8_t>(size.begin(), size.end()));
    std::string missing;
    int joined = 0;
    for (int other = 0; other < world_size; ++other) {
      const std::string key = "size/" + std::to_string(other);
      if (missing.empty()) {
        try {
          store.wait({key}, remaining(deadline));
        } catch (const c10::Error&) {
          // The store rounds its time limit.
          if (Clock::now() + Milliseconds(50) < deadline) throw;
        }
      }
      if (!store.check({key})) {
        missing += (missing.empty() ? "" : ", ") + std::to_string(other);
        continue;
      }
      ++joined;
      const std::string other_size = text_of(store.get(key));
      if (other_size != size) {
        throw std::runtime_error("the ranks have different sizes of the group\n  expected: WORLD_SIZE=" + size +
                                 " on all ranks\n  found: WORLD_SIZE=" + other_size + " on rank " +
                                 std::to_string(other));
      }
    }
    if (!missing.empty()) {
      throw std::runtime_error("not all ranks have joined\n  expected: " + size + " ranks\n  found: " +
                               std::to_string(joined) + "; missing: " + missing);
    }

    store.setTimeout(timeout);
    if (options->nccl != 0) {
#ifdef USE_C10D_NCCL
      c10::cuda::set_device(static_cast<c10::DeviceIndex>(options->cuda_device));
      auto nccl = c10d::ProcessGroupNCCL::Options::create();
      nccl->timeout = timeout;
      opened->backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(opened->store, rank, world_size, nccl);
#else
      throw std::runtime_error("this build has no NCCL");
#endif
    } else {
      auto gloo = c10d::ProcessGroupGloo::Options::create_default(timeout);
      opened->backend = c10::make_intrusive<c10d::ProcessGroupGloo>(opened->store, rank, world_size, gloo);
    }
    *group = opened.release();
  });
}

void laps_dist_close(LapsDistGroup* group) {
  // A destructor may report a lost connection, which has been reported by the operation that found it.
  laps_dist_free(guarded([&] { delete group; }));
}

// Replaces each tensor by its sum over all ranks. All sums are started before the first is waited for.
char* laps_dist_all_reduce(LapsDistGroup* group, at::Tensor** tensors, size_t count) {
  return guarded([&] {
    std::vector<c10::intrusive_ptr<c10d::Work>> started;
    for (size_t index = 0; index < count; ++index) {
      std::vector<at::Tensor> operands{*tensors[index]};
      started.push_back(group->backend->allreduce(operands));
    }
    for (const auto& work : started) work->wait();
  });
}

// Replaces `tensor` by that of rank `root`.
char* laps_dist_broadcast(LapsDistGroup* group, at::Tensor* tensor, int32_t root) {
  return guarded([&] {
    std::vector<at::Tensor> operands{*tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    group->backend->broadcast(operands, options)->wait();
  });
}

// Writes the flat `input` of all ranks to the flat `output`, in the order of the ranks.
char* laps_dist_all_gather(LapsDistGroup* group, at::Tensor* output, at::Tensor* input) {
  return guarded([&] { group->backend->_allgather_base(*output, *input)->wait(); });
}

char* laps_dist_barrier(LapsDistGroup* group) {
  return guarded([&] { group->backend->barrier()->wait(); });
}

char* laps_dist_store_set(LapsDistGroup* group, const char* key, const char* value) {
  return guarded([&] {
    const std::string text(value);
    group->store->set(key, std::vector<uint8_t>(text.begin(), text.end()));
  });
}

// The value of `key`, to be freed; an error after the timeout.
char* laps_dist_store_get(LapsDistGroup* group, const char* key, int64_t timeout_ms, char** value) {
  return guarded([&] {
    group->store->wait({key}, Milliseconds(timeout_ms));
    *value = strdup(text_of(group->store->get(key)).c_str());
  });
}

}  // extern "C"
