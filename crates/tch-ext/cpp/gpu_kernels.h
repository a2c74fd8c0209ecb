// The kernels of group_norm_gpu.h, launched on a GPU or run on the CPU for tests.
#pragma once

#include "group_norm_gpu.h"

namespace tch_ext {

// Whether the kernels were compiled for this GPU.
bool has_gpu_kernels(int device);

// Whether they take a batch of images with so many channels.
bool fits_gpu_kernels(int64_t batch, int64_t channels);

enum class Stage { SUMS, FINISH, APPLY };

struct Grid {
    unsigned x, y, z;
};

// Runs one stage for each block of the grid: on the GPU in stream order, or on the CPU before this returns.
void launch(bool on_gpu, bool bf16, int pack, bool backward, Stage stage, const gpu_norm::Job &job, Grid grid);

} // namespace tch_ext
