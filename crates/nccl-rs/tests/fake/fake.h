// A stand-in for libnccl and libcudart in one library: the same functions, on the memory of the host.
//
// Streams are threads, events are places in their queues, and "device memory" is malloc's. cuda.c has the runtime's
// half, nccl.c the collectives between processes, over shared memory. Beyond doing the work they check the
// caller: every access to device memory must be ordered after the last one by streams and events, all ranks must make
// the same calls, and what was destroyed must not be used.
//
// Environment:
//   FAKE_GPUS=N           how many GPUs there are (8)
//   FAKE_GPUS=1,0/2.0     what each rank sees, in this order: of GPU 1 and 0 all, of GPU 2 the slice 0
//   FAKE_FAIL=CALL:N      the N-th call of that function fails
//   FAKE_HANG=CALL:N      it never returns, or, for a collective, is enqueued and never done
//   FAKE_ASYNC=CALL:N     that collective is enqueued and never done, and ncclCommGetAsyncError says that a peer is gone
//   FAKE_RANK=R           the three above on rank R only
// Compiled with -DVERSION=21003 it is another version; with -DncclCommAbort=removed it lacks a function. With
// -DHOST_MEMORY the memory of the host is that of the GPUs, and the host is the default stream: what it has written is
// ordered by an event on that stream, and a wait of that stream for an event is the host's. So a program that computes on
// the CPU goes the way of one that computes on GPUs.
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { STREAMS = 64 };

// The order of work: clock[i] is how much of stream i's work has happened before.
typedef struct { unsigned long at[STREAMS]; } vector_clock;

typedef struct stream stream;

// One entry of a stream's queue.
typedef struct task {
    void (*run)(struct task *);
    struct task *next;
} task;

// Whether this call of the function is the one that the environment variable asks for.
bool asked(const char *variable, const char *call);
// Blocks for ever if FAKE_HANG asks for it.
void maybe_hang(const char *call);

stream *stream_of(void *handle);         // NULL if it was destroyed
void enqueue(stream *on, task *work);    // takes a task from malloc
void wait_until_idle(void);
int current_gpu(void); // whatever its number in this process

// Notes that `on` touches the memory. NULL, or what is wrong: no device memory, or not ordered after the last access.
const char *touch(stream *on, const void *memory, size_t bytes);
