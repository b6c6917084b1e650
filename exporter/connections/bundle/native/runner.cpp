// Runs ExecuTorch programs behind a C interface, where Python's own binding cannot be imported for want of torch.
//
// The agent loads the ExecuTorch wheel's library first, with lazy binding and for everybody: it brings the executor,
// the portable kernels and XNNPACK. What of torch the library's data refers to comes from torch_symbols.c; torch's
// functions are never called. A null pointer, or a status that is not 0, means failure; `cocorr_last_error` says which.

#include <executorch/runtime/executor/method.h>
#include <executorch/runtime/executor/program.h>
#include <executorch/runtime/platform/runtime.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <memory>
#include <vector>

namespace executorch::extension::threadpool {
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t);
  size_t get_thread_count() const;
};
ThreadPool* get_threadpool();
}  // namespace executorch::extension::threadpool

// The reader of a .ptd file, whose header the wheel does not bring. `load` returns a Result<FlatTensorDataMap>: the map
// itself, a NamedDataMap, where it succeeded, and a small error code in the same place where it failed.
namespace executorch::extension {
class FlatTensorDataMap {
 public:
  struct alignas(16) Loaded {
    Loaded(const Loaded&) = delete;
    ~Loaded() {}  // so that it is returned in memory of the caller's, as the real type is
    uint8_t bytes[4096];
  };
  static Loaded load(runtime::DataLoader* loader);
};
}  // namespace executorch::extension

using namespace executorch::runtime;
using executorch::extension::FlatTensorDataMap;
using executorch::aten::Tensor;
using executorch::aten::TensorImpl;

namespace {

constexpr size_t kAlignment = 64;
constexpr size_t kMethodPool = 64 << 20;
constexpr size_t kTemporaryPool = 32 << 20;
// A system call that does nothing; whoever counts instructions stops at it.
constexpr pid_t kMarker = 0x5ca1ab1e;

char g_error[256] = "";

#define FAIL(...) snprintf(g_error, sizeof g_error, __VA_ARGS__)

struct Free {
  void operator()(void* memory) const { free(memory); }
};
using Memory = std::unique_ptr<uint8_t, Free>;

Memory allocate(size_t size) {
  size_t whole = (size + kAlignment - 1) / kAlignment * kAlignment;
  return Memory(static_cast<uint8_t*>(aligned_alloc(kAlignment, whole ? whole : kAlignment)));
}

// The program as it lies in memory; its weights are read in place.
class BufferLoader final : public DataLoader {
 public:
  BufferLoader(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  Result<FreeableBuffer> load(size_t offset, size_t size, const SegmentInfo&) const override {
    if (offset > size_ || size > size_ - offset) return Error::InvalidArgument;
    return FreeableBuffer(data_ + offset, size, nullptr);
  }
  Error load_into(size_t offset, size_t size, const SegmentInfo&, void* to) const override {
    if (offset > size_ || size > size_ - offset) return Error::InvalidArgument;
    memcpy(to, data_ + offset, size);
    return Error::Ok;
  }
  Result<size_t> size() const override { return size_; }

 private:
  const uint8_t* data_;
  size_t size_;
};

// An input: what the caller gives it, and, where the plan gives it no memory, a tensor over the caller's.
struct Feed {
  bool is_planned = false;
  uint8_t* data = nullptr;
  size_t size = 0;
  std::vector<int32_t> sizes, strides;
  std::vector<uint8_t> order;
  std::unique_ptr<TensorImpl> tensor;
};

// Returns the weights by name that a .ptd file was loaded to, or null.
const NamedDataMap* named(const FlatTensorDataMap::Loaded& loaded) {
  uintptr_t first;
  memcpy(&first, loaded.bytes, sizeof first);
  bool is_map = first > UINT32_MAX;  // a table of virtual functions, and no error code
  return is_map ? reinterpret_cast<const NamedDataMap*>(loaded.bytes) : nullptr;
}

struct Model {
  Memory file, data_file, method_pool, temporary_pool;
  std::unique_ptr<BufferLoader> loader, data_loader;
  std::unique_ptr<FlatTensorDataMap::Loaded> weights;
  std::unique_ptr<Program> program;
  std::vector<Memory> planned;
  std::vector<Span<uint8_t>> spans;
  std::unique_ptr<HierarchicalAllocator> hierarchical;
  std::unique_ptr<MemoryAllocator> method_allocator, temporary_allocator;
  std::unique_ptr<MemoryManager> manager;
  std::unique_ptr<Method> method;
  std::vector<Feed> feeds;
};

const char* method_name(const Program& program) {
  if (program.num_methods() != 1) {
    FAIL("the model has %zu methods, exactly one is expected", program.num_methods());
    return nullptr;
  }
  auto name = program.get_method_name(0);
  return name.ok() ? *name : nullptr;
}

bool load(Model& model, const uint8_t* content, size_t size, const uint8_t* data, size_t data_size) {
  model.file = allocate(size);
  model.data_file = allocate(data_size);
  model.method_pool = allocate(kMethodPool);
  model.temporary_pool = allocate(kTemporaryPool);
  if (!model.file || !model.data_file || !model.method_pool || !model.temporary_pool) {
    FAIL("failed to allocate memory for the program");
    return false;
  }
  memcpy(model.file.get(), content, size);
  model.loader = std::make_unique<BufferLoader>(model.file.get(), size);
  auto program = Program::load(model.loader.get(), Program::Verification::InternalConsistency);
  if (!program.ok()) {
    FAIL("error 0x%x: this is no program that this ExecuTorch can load", static_cast<unsigned>(program.error()));
    return false;
  }
  model.program = std::make_unique<Program>(std::move(program.get()));
  const char* name = method_name(*model.program);
  if (!name) return false;
  auto meta = model.program->method_meta(name);
  if (!meta.ok()) {
    FAIL("error 0x%x: the method %s cannot be read", static_cast<unsigned>(meta.error()), name);
    return false;
  }
  for (size_t index = 0; index < meta->num_memory_planned_buffers(); index++) {
    auto bytes = meta->memory_planned_buffer_size(index);
    if (!bytes.ok() || *bytes < 0) {
      FAIL("the memory plan cannot be read");
      return false;
    }
    model.planned.push_back(allocate(*bytes));
    if (!model.planned.back()) {
      FAIL("failed to allocate %lld bytes of planned memory", static_cast<long long>(*bytes));
      return false;
    }
    model.spans.emplace_back(model.planned.back().get(), *bytes);
  }
  model.hierarchical =
      std::make_unique<HierarchicalAllocator>(Span<Span<uint8_t>>(model.spans.data(), model.spans.size()));
  model.method_allocator = std::make_unique<MemoryAllocator>(kMethodPool, model.method_pool.get());
  model.temporary_allocator = std::make_unique<MemoryAllocator>(kTemporaryPool, model.temporary_pool.get());
  model.manager = std::make_unique<MemoryManager>(
      model.method_allocator.get(), model.hierarchical.get(), model.temporary_allocator.get());
  const NamedDataMap* weights = nullptr;
  if (data) {
    memcpy(model.data_file.get(), data, data_size);
    model.data_loader = std::make_unique<BufferLoader>(model.data_file.get(), data_size);
    model.weights.reset(new FlatTensorDataMap::Loaded(FlatTensorDataMap::load(model.data_loader.get())));
    weights = named(*model.weights);
    if (!weights) {
      FAIL("the data file is none that this ExecuTorch can load");
      return false;
    }
  }
  auto method = model.program->load_method(name, model.manager.get(), nullptr, weights);
  if (!method.ok()) {
    FAIL("error 0x%x: the method %s cannot be loaded", static_cast<unsigned>(method.error()), name);
    return false;
  }
  model.method = std::make_unique<Method>(std::move(method.get()));
  for (size_t index = 0; index < model.method->inputs_size(); index++) {
    // Now, because an input that was set once has a pointer too: to memory of the caller's, which is not ours to write.
    const EValue& value = model.method->get_input(index);
    Feed feed;
    feed.is_planned = value.isTensor() && value.toTensor().const_data_ptr() != nullptr;
    model.feeds.push_back(std::move(feed));
  }
  return true;
}

// The shape of a tensor of at most 16 dimensions; returns its rank, or -1.
int describe(const Tensor& tensor, int32_t* dtype, int64_t* sizes) {
  if (tensor.dim() > 16) return -1;
  *dtype = static_cast<int32_t>(tensor.scalar_type());
  for (int axis = 0; axis < tensor.dim(); axis++) sizes[axis] = tensor.size(axis);
  return static_cast<int>(tensor.dim());
}

// Copies inputs to where the plan has them: each time, because it gives their memory to others once they are read.
void fill(Model& model) {
  for (size_t index = 0; index < model.feeds.size(); index++) {
    Feed& feed = model.feeds[index];
    if (feed.is_planned) memcpy(model.method->mutable_input(index).toTensor().mutable_data_ptr(), feed.data, feed.size);
  }
}

int execute(Model& model) {
  Error error = model.method->execute();
  if (error != Error::Ok) FAIL("error 0x%x: the method failed", static_cast<unsigned>(error));
  return error != Error::Ok;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API const char* cocorr_last_error() { return g_error; }

// Fixes the threads of the process; returns how many there are.
API uint32_t cocorr_start(uint32_t threads) {
  runtime_init();
  auto* pool = executorch::extension::threadpool::get_threadpool();
  pool->_unsafe_reset_threadpool(threads);
  return static_cast<uint32_t>(pool->get_thread_count());
}

// Loads a program, with the data file beside it or null.
API Model* cocorr_load(const uint8_t* content, size_t size, const uint8_t* data, size_t data_size) {
  auto model = std::make_unique<Model>();
  return load(*model, content, size, data, data_size) ? model.release() : nullptr;
}

API void cocorr_free(Model* model) { delete model; }

API size_t cocorr_count(Model* model, int outputs) {
  return outputs ? model->method->outputs_size() : model->method->inputs_size();
}

// Rank, dtype (torch's ScalarType) and sizes of an input or output; -1 where it is no tensor.
API int cocorr_tensor(Model* model, int outputs, size_t index, int32_t* dtype, int64_t* sizes) {
  const EValue& value = outputs ? model->method->get_output(index) : model->method->get_input(index);
  return value.isTensor() ? describe(value.toTensor(), dtype, sizes) : -1;
}

// Gives an input `size` bytes, which stay the caller's and must live until the last execution.
API int cocorr_set_input(Model* model, size_t index, uint8_t* data, size_t size) {
  Tensor tensor = model->method->get_input(index).toTensor();
  if (tensor.nbytes() != size) {
    FAIL("input %zu has %zu bytes, not %zu", index, tensor.nbytes(), size);
    return 1;
  }
  Feed& feed = model->feeds[index];
  feed.data = data;
  feed.size = size;
  if (feed.is_planned) return 0;
  feed.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  feed.strides.assign(tensor.strides().begin(), tensor.strides().end());
  feed.order.assign(tensor.dim_order().begin(), tensor.dim_order().end());
  feed.tensor = std::make_unique<TensorImpl>(
      tensor.scalar_type(), tensor.dim(), feed.sizes.data(), data, feed.order.data(), feed.strides.data());
  Error error = model->method->set_input(EValue(Tensor(feed.tensor.get())), index);
  if (error != Error::Ok) FAIL("error 0x%x: input %zu was refused", static_cast<unsigned>(error), index);
  return error != Error::Ok;
}

API int cocorr_execute(Model* model) {
  fill(*model);
  return execute(*model);
}

// The same with three markers: nothing lies between the first two, the method itself between the last two.
API int cocorr_execute_marked(Model* model) {
  fill(*model);
  getpgid(kMarker);
  getpgid(kMarker);
  int failed = execute(*model);
  getpgid(kMarker);
  return failed;
}

API const void* cocorr_output(Model* model, size_t index, size_t* size) {
  const Tensor tensor = model->method->get_output(index).toTensor();
  *size = tensor.nbytes();
  return tensor.const_data_ptr();
}
