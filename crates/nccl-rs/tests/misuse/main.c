// Violates the rules of CUDA and NCCL one by one: the library of tests/fake must detect each violation.
// Linked with that library; prints the rules whose violation goes undetected.
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct { char bytes[128]; } unique_id;
typedef void *handle;

int cudaMalloc(void **, size_t), cudaSetDevice(int), cudaMemcpyAsync(void *, const void *, size_t, int, handle);
int cudaStreamCreateWithFlags(handle *, unsigned), cudaStreamDestroy(handle), cudaStreamSynchronize(handle);
int cudaEventCreateWithFlags(handle *, unsigned), cudaEventDestroy(handle), cudaEventRecord(handle, handle);
int cudaStreamWaitEvent(handle, handle, unsigned), cudaEventQuery(handle);
int ncclGetUniqueId(unique_id *), ncclCommInitRank(handle *, int, unique_id, int), ncclGroupStart(void), ncclGroupEnd(void);
int ncclAllReduce(const void *, void *, size_t, int, int, handle, handle);
int ncclCommGetAsyncError(handle, int *), ncclCommFinalize(handle), ncclCommDestroy(handle);

enum { F32 = 7, BF16 = 9, SUM = 0, COPY_DEFAULT = 4, NOT_READY = 600 };
static int failures;

static void expect(int holds, const char *rule) {
    if (holds) return;
    printf("%s\n", rule);
    failures++;
}

// Two ranks call all-reduces that differ; or, as a control, that do not.
static int detects(unique_id id, size_t count, int type) {
    int rank = fork() ? 0 : 1, error = 0;
    handle comm, stream;
    void *memory;
    cudaSetDevice(rank);
    cudaMalloc(&memory, 64);
    cudaStreamCreateWithFlags(&stream, 1);
    if (ncclCommInitRank(&comm, 2, id, rank)) return -1;
    if (rank) ncclAllReduce(memory, memory, count, type, SUM, comm, stream);
    else ncclAllReduce(memory, memory, 16, F32, SUM, comm, stream);
    cudaStreamSynchronize(stream);
    ncclCommGetAsyncError(comm, &error);
    if (rank) _exit(error != 0);
    int theirs = 0;
    wait(&theirs);
    return error != 0 && theirs != 0;
}

int main(void) {
    unique_id id;
    // Before this process has threads, which do not survive a fork; each pair is two child processes.
    for (int i = 0; i < 3; i++) {
        ncclGetUniqueId(&id);
        if (!fork()) _exit(detects(id, i == 1 ? 15 : 16, i == 2 ? BF16 : F32));
        int status;
        wait(&status);
        static const char *rules[] = {"equal calls pass", "counts agree", "types agree"};
        expect(WIFEXITED(status) && WEXITSTATUS(status) == (i > 0), rules[i]);
    }

    handle comm, compute, lane, ready;
    void *memory;
    float values[4] = {1, 2, 3, 4};
    ncclGetUniqueId(&id);
    expect(!ncclCommInitRank(&comm, 1, id, 0), "a single rank can start");
    cudaMalloc(&memory, sizeof values);
    cudaStreamCreateWithFlags(&compute, 1);
    cudaStreamCreateWithFlags(&lane, 1);
    cudaEventCreateWithFlags(&ready, 2);

    expect(ncclAllReduce(values, values, 4, F32, SUM, comm, lane), "a collective takes device memory only");
    cudaMemcpyAsync(memory, values, sizeof values, COPY_DEFAULT, compute);
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "a collective waits for what writes its buffer");
    cudaStreamWaitEvent(lane, ready, 0);
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "an unrecorded event orders nothing");

    cudaEventRecord(ready, compute);
    cudaStreamWaitEvent(lane, ready, 0);
    expect(!ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "an event orders a collective");
    cudaEventRecord(ready, lane);
    expect(cudaMemcpyAsync(values, memory, sizeof values, COPY_DEFAULT, compute), "a copy waits for the last use");
    cudaStreamWaitEvent(compute, ready, 0);
    expect(!cudaMemcpyAsync(values, memory, sizeof values, COPY_DEFAULT, compute), "an event orders a copy");
    cudaEventRecord(ready, compute); // too early: before the copy to wait for
    cudaMemcpyAsync(memory, values, sizeof values, COPY_DEFAULT, compute);
    cudaStreamWaitEvent(lane, ready, 0);
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "an event recorded too early does not help");

    expect(ncclGroupEnd(), "a group starts before it ends");
    expect(ncclAllReduce(memory, memory, 4, 3, SUM, comm, lane), "unknown types are refused");
    expect(ncclCommDestroy(comm), "a communicator is finalized before it is destroyed");
    expect(!ncclCommFinalize(comm), "a communicator can be finalized");
    expect(ncclAllReduce(memory, memory, 4, F32, SUM, comm, lane), "a finalized communicator takes no work");
    expect(!ncclCommDestroy(comm), "a communicator can be destroyed");
    expect(ncclCommDestroy(comm), "a communicator is destroyed once");
    int error;
    expect(ncclCommGetAsyncError(comm, &error), "a destroyed communicator is not queried");
    cudaEventDestroy(ready);
    expect(cudaEventRecord(ready, lane) && cudaEventQuery(ready) != NOT_READY, "a destroyed event is not used");
    cudaStreamDestroy(lane);
    expect(cudaStreamSynchronize(lane), "a destroyed stream is not used");
    return failures != 0;
}
