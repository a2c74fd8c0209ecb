#include "group_norm_on_gpu.h"
#include "gpu_kernels.h"

#include <ATen/record_function.h>

#include <vector>

namespace tch_ext {
namespace {

using gpu_norm::COLUMNS, gpu_norm::Job, gpu_norm::THREADS;
using torch::Tensor;

// Enough blocks for a large GPU, each with enough pixels to be worth its reduction.
constexpr int64_t CHUNK_PIXELS = 64;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int channels_of(const Tensor &tensor) { return tensor.defined() ? static_cast<int>(tensor.size(1)) : 0; }

gpu_norm::Parts parts_of(const Inputs &tensors, const Inputs &x) {
    gpu_norm::Parts parts{};
    for (int i = 0; i < 2; ++i) {
        parts.at[i] = tensors[i].defined() ? tensors[i].data_ptr() : nullptr;
        parts.channels[i] = channels_of(x[i]);
    }
    return parts;
}

struct Pass {
    Job job{};
    bool on_gpu, bf16, backward;
    Tensor partial;

    Pass(const Inputs &x, const Tables &tables, int64_t groups, bool silu, bool backward)
        : on_gpu(x[0].is_cuda()), bf16(x[0].scalar_type() == at::kBFloat16), backward(backward) {
        job.x = parts_of(x, x);
        job.batch = static_cast<int>(x[0].size(0));
        job.channels = job.x.channels[0] + job.x.channels[1];
        job.pixels = x[0].size(2) * x[0].size(3);
        job.groups = static_cast<int>(groups);
        job.silu = silu;
        job.chunk_pixels = CHUNK_PIXELS;
        job.chunks = static_cast<int>(ceil_div(job.pixels, CHUNK_PIXELS));
        const auto table = [](const Tensor &tensor) { return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr; };
        const auto rows = [](const Tensor &tensor) { return tensor.defined() ? static_cast<int>(tensor.size(0)) : 1; };
        job.offset = table(tables.offset), job.gain = table(tables.gain), job.bias = table(tables.bias);
        job.offset_rows = rows(tables.offset), job.gain_rows = rows(tables.gain), job.bias_rows = rows(tables.bias);
        partial = at::empty({job.batch, job.chunks, 2, job.channels}, tables.gain.options());
        job.partial = partial.data_ptr<float>();
    }

    // Channels that are read and written at once: four if they belong to the same input and all images are aligned.
    int pack() const {
        const size_t together = 4 * (bf16 ? sizeof(gpu_norm::Bf16) : sizeof(float));
        bool fits = true;
        const auto check = [&](const void *at) { fits &= reinterpret_cast<uintptr_t>(at) % together == 0; };
        for (int i = 0; i < 2; ++i) {
            fits &= job.x.channels[i] % 4 == 0;
            for (const auto *parts : {&job.x, &job.dx, &job.passed}) check(parts->at[i]);
        }
        check(job.dy), check(job.y);
        return fits ? 4 : 1;
    }

    Tensor per_channel(float *&place) const {
        auto tensor = at::empty({job.batch, job.channels}, partial.options());
        place = tensor.data_ptr<float>();
        return tensor;
    }

    void run(Stage stage, const char *name, const std::vector<Tensor> &reads, const std::vector<Tensor> &writes) const {
        std::vector<c10::IValue> inputs, outputs;
        for (const auto &tensor : reads)
            if (tensor.defined()) inputs.emplace_back(tensor);
        for (const auto &tensor : writes)
            if (tensor.defined()) outputs.emplace_back(tensor);
        at::RecordFunction guard(at::RecordScope::FUNCTION);
        if (guard.isActive()) {
            guard.before(name, c10::ArrayRef<const c10::IValue>(inputs.data(), inputs.size()));
            guard.setOutputs(std::move(outputs));
        }
        const auto batch = static_cast<unsigned>(job.batch);
        const int pack = this->pack();
        Grid grid{batch, 1, 1};
        if (stage == Stage::SUMS) {
            grid = {static_cast<unsigned>(job.chunks), static_cast<unsigned>(ceil_div(job.channels / pack, COLUMNS)), batch};
        } else if (stage == Stage::APPLY) {
            grid = {static_cast<unsigned>(ceil_div(job.pixels * (job.channels / pack), THREADS)), batch, 1};
        }
        launch(on_gpu, bf16, pack, backward, stage, job, grid);
    }
};

} // namespace

Tensor norm_on_gpu(const Inputs &x, const Tables &tables, int64_t groups, double eps, bool silu, GpuStatistics &s) {
    Pass pass{x, tables, groups, silu, false};
    auto &job = pass.job;
    job.eps = static_cast<float>(eps);
    auto y = at::empty({job.batch, job.channels, x[0].size(2), x[0].size(3)},
                       x[0].options().memory_format(at::MemoryFormat::ChannelsLast));
    job.y = y.data_ptr();
    s = {pass.per_channel(job.centre), pass.per_channel(job.rstd), pass.per_channel(job.channel_mean)};
    pass.run(Stage::SUMS, "tch_ext::group_norm_sums", {x[0], x[1]}, {pass.partial});
    pass.run(Stage::FINISH, "tch_ext::group_norm_finish", {pass.partial}, {s.centre, s.rstd, s.channel_mean});
    pass.run(Stage::APPLY, "tch_ext::group_norm_apply", {x[0], x[1]}, {y});
    return y;
}

GpuGradients norm_backward_on_gpu(const Inputs &x, const Tables &tables, int64_t groups, bool silu, const GpuStatistics &s,
                                  const Tensor &dy, const Inputs &passed) {
    Pass pass{x, tables, groups, silu, true};
    auto &job = pass.job;
    GpuGradients d{};
    d.x[0] = at::empty_like(x[0]);
    if (x[1].defined()) d.x[1] = at::empty_like(x[1]);
    job.dx = parts_of(d.x, x);
    job.passed = parts_of(passed, x);
    job.dy = dy.const_data_ptr();
    job.centre = s.centre.data_ptr<float>();
    job.rstd = s.rstd.data_ptr<float>();
    job.channel_mean = s.channel_mean.data_ptr<float>();
    d.offset = pass.per_channel(job.d_offset);
    d.gain_and_bias = at::empty({2, job.batch, job.channels}, d.offset.options());
    job.d_gain = d.gain_and_bias.data_ptr<float>();
    job.d_bias = job.d_gain + d.offset.numel();
    const auto plain = pass.per_channel(job.plain), along = pass.per_channel(job.along);
    pass.run(Stage::SUMS, "tch_ext::group_norm_backward_sums", {x[0], x[1], dy}, {pass.partial});
    pass.run(Stage::FINISH, "tch_ext::group_norm_backward_finish", {pass.partial}, {d.offset, d.gain_and_bias, plain, along});
    pass.run(Stage::APPLY, "tch_ext::group_norm_backward_apply", {x[0], x[1], dy, passed[0], passed[1]}, {d.x[0], d.x[1]});
    return d;
}

} // namespace tch_ext
