// A fake libnccl, libcudart and libnvidia-ml in one library: the same functions, on host memory.
//
// Streams are threads, events are positions in their queues, and "device memory" comes from malloc. cuda.c has the CUDA
// runtime, capture.c the recording of graphs, nccl.c the collectives between processes, over shared memory, nvml.c the
// sensors of the GPUs. Besides doing the work they check the caller: every access to device memory must be ordered after
// the previous one by streams and events, all ranks must make the same calls, what is recorded must keep to CUDA's rules,
// and destroyed objects must not be used.
//
// Environment:
//   FAKE_GPUS=N           the number of GPUs (8)
//   FAKE_GPUS=1,0/2.0     the GPUs that each rank sees, in this order: rank 0 GPUs 1 and 0, rank 1 slice 0 of GPU 2
//   FAKE_GPUS=visible     those that CUDA_VISIBLE_DEVICES names by their numbers
//   FAKE_FAIL=CALL:N      the N-th call of that function fails
//   FAKE_HANG=CALL:N      that call never returns or, for a collective, is enqueued and never finishes
//   FAKE_ASYNC=CALL:N     that collective is enqueued and never finishes, and ncclCommGetAsyncError reports a lost peer
//   FAKE_RANK=R           apply the three above on rank R only
// Compiled with -DVERSION=21003 it reports another version; with -DncclCommAbort=removed it lacks a function. With
// -DHOST_MEMORY host memory counts as GPU memory, and the host as the default stream: an event on that stream orders what
// the host has written, and a wait of that stream for an event blocks the host. So a program that computes on the CPU
// takes the code path of one that computes on GPUs.
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { STREAMS = 64 };

// The order of work: at[i] is the amount of stream i's work that happened before.
typedef struct { unsigned long at[STREAMS]; } vector_clock;

typedef struct stream stream;

// One entry of a stream's queue.
typedef struct task {
    void (*run)(struct task *);
    struct task *next;
} task;

// Whether this call of the function is the one selected by the environment variable.
bool asked(const char *variable, const char *call);
// Blocks forever if FAKE_HANG selects this call.
void maybe_hang(const char *call);

stream *stream_of(void *handle);         // NULL if it was destroyed
void enqueue(stream *on, task *work);    // takes ownership of a task from malloc
void wait_until_idle(void);
int current_gpu(void); // its physical number

// Records that `on` accesses the memory. Returns NULL, or the error: not device memory, or not ordered after the last access.
const char *touch(stream *on, const void *memory, size_t bytes);
